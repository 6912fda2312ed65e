//go:build slim

package bucket

import (
	"context"

	"hako/internal/diag"
)

// connect refuses: this build has no cloud's software.
func (b *Bucket) connect(context.Context) error {
	return &diag.Error{What: b.place.String() + ": this program was built without object storage", Hint: "Build it without the tag slim."}
}
