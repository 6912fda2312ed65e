//go:build !slim

package credential

import (
	"context"

	"github.com/google/go-containerregistry/pkg/authn"
)

// clouds are the helpers that need a cloud's own software; a build with the tag slim has none.
func clouds() map[string]func(context.Context, string) (*authn.AuthConfig, error) {
	return map[string]func(context.Context, string) (*authn.AuthConfig, error){
		"google": fromGoogle, "ecr": fromECR, "acr": fromACR,
	}
}
