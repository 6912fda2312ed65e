//go:build !slim

package credential

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/google"
)

// fromGoogle takes application default credentials: a key file, workload identity, or the metadata server.
func fromGoogle(ctx context.Context, host string) (*authn.AuthConfig, error) {
	if !isGoogle(host) {
		return nil, nil
	}
	auth, err := google.NewEnvAuthenticator(ctx)
	if err != nil {
		return nil, fmt.Errorf("find Google's application default credentials: %w", err)
	}
	c, err := authn.Authorization(ctx, auth)
	if err != nil {
		return nil, fmt.Errorf("get a token from Google: %w", err)
	}
	return c, nil
}

// isGoogle knows Container Registry and Artifact Registry by their names.
func isGoogle(host string) bool {
	return host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev") || strings.HasSuffix(host, ".google.com")
}
