package registry

import (
	"context"
	"encoding/json"

	"github.com/google/go-containerregistry/pkg/authn"
)

// DockerConfig is the text of a config.json with what this client's sources know for the repositories of references, and no
// more: for a whole registry, or for one repository that has credentials of its own. It is nil if there are none. No registry
// is asked whether it accepts them.
func (c *Client) DockerConfig(ctx context.Context, references []string) ([]byte, error) {
	auths := map[string]authn.AuthConfig{}
	for _, text := range references {
		ref, err := ParseReference(text)
		if err != nil {
			return nil, err
		}
		host := ref.Context().RegistryStr()
		general, err := c.credentials(ctx, host)
		if err != nil {
			return nil, err
		}
		if general != nil {
			auths[serverOf(host)] = *general
		}
		own, err := c.credentials(ctx, ref.Context().Name())
		if err != nil {
			return nil, err
		}
		if own != nil && (general == nil || *own != *general) {
			auths[ref.Context().Name()] = *own
		}
	}
	if len(auths) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"auths": auths})
}

// credentials are those of the first source that has some for a repository, or for a host; nil if none has. A source that does
// not answer is passed over, as in a build.
func (c *Client) credentials(ctx context.Context, of string) (*authn.AuthConfig, error) {
	for _, s := range c.keychain.sources(of) {
		found, err := s.load(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && found != nil {
			return found, nil
		}
	}
	return nil, nil //nolint:nilnil // there are none
}
