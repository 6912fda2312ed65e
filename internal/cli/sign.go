package cli

import (
	"fmt"
	"strings"

	"hako/internal/build"
	"hako/internal/diag"
)

// signing reads how to sign. A key alone asks for it, too. The words for keys are cosign's, as far as they are local.
func (c *command) signing(vs *values) (build.Signing, error) {
	key := vs.str("sign-key")
	wanted := vs.bool("sign")
	switch {
	case key == "" && wanted:
		return build.Signing{}, &diag.Error{
			What: "--sign needs a key: there is no signing without one here",
			Hint: "Make one with cosign generate-key-pair, and give it with --sign-key=cosign.key.",
		}
	case key == "", len(vs.list("sign")) > 0 && !wanted:
		return build.Signing{}, nil
	}
	password, ok := c.vars["COSIGN_PASSWORD"]
	if !ok {
		return build.Signing{}, &diag.Error{
			What: "--sign-key: COSIGN_PASSWORD is not set", Hint: "Set it to the password of the key, or to nothing if there is none.",
		}
	}
	out, err := c.key("--sign-key", key)
	if err != nil {
		return build.Signing{}, err
	}
	out.Password = password
	return out, nil
}

// cacheKey reads which key vouches for what is cached.
func (c *command) cacheKey(vs *values) (build.Signing, error) {
	key := vs.str("cache-key-file")
	if key == "" {
		return build.Signing{}, nil
	}
	out, err := c.key("--cache-key-file", key)
	if err != nil {
		return build.Signing{}, err
	}
	out.Password = c.vars["COSIGN_PASSWORD"]
	return out, nil
}

// key reads where a key is: in a file or in a variable.
func (c *command) key(flag, key string) (build.Signing, error) {
	out := build.Signing{KeyFile: key}
	scheme, rest, isURI := strings.Cut(key, "://")
	if !isURI {
		return out, nil
	}
	if scheme != "env" {
		return build.Signing{}, &diag.Error{
			What: fmt.Sprintf("%s: keys of %s:// are not supported", flag, scheme),
			Hint: "Give a file or env://NAME.",
		}
	}
	if out.KeyFile, out.KeyText = "", c.getenv(rest); out.KeyText == "" {
		return build.Signing{}, fmt.Errorf("%s: the environment variable %s is not set", flag, rest)
	}
	return out, nil
}
