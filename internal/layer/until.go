package layer

import (
	"context"
	"io"
	"time"

	"hako/internal/tree"
)

// Until returns changes in which no entry is younger than latest: one that is gets this time, and note, if that
// is not nil, is told of it before the entry is passed on.
func Until(changes Changes, latest time.Time, note func(e *tree.Entry)) Changes {
	return &until{changes: changes, latest: latest, note: note}
}

type until struct {
	changes Changes
	latest  time.Time
	note    func(*tree.Entry)
}

// Each is Changes.Each.
func (u *until) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	return u.changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		if headerTime(e.ModTime).After(u.latest) {
			if e.ModTime = u.latest; u.note != nil {
				u.note(&e)
			}
		}
		return fn(e, content)
	})
}
