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
	out := build.Signing{KeyFile: key, Password: password}
	scheme, rest, isURI := strings.Cut(key, "://")
	if !isURI {
		return out, nil
	}
	if scheme != "env" {
		return build.Signing{}, &diag.Error{
			What: fmt.Sprintf("--sign-key: keys of %s:// are not supported", scheme),
			Hint: "Give a file or env://NAME, or sign with cosign when the image is pushed.",
		}
	}
	if out.KeyFile, out.KeyText = "", c.getenv(rest); out.KeyText == "" {
		return build.Signing{}, fmt.Errorf("--sign-key: the environment variable %s is not set", rest)
	}
	return out, nil
}
