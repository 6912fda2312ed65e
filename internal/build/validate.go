package build

import (
	"errors"
	"fmt"

	"hako/internal/diag"
)

// Validate says what of the request cannot be.
func (r *Request) Validate() error {
	return errors.Join(r.validateOutputs(), r.validatePlatforms(), r.validateCompression(), r.validateLater())
}

func (r *Request) validateOutputs() error {
	if len(r.Outputs.Destinations) > 0 || r.Outputs.NoPush || r.DryRun {
		return nil
	}
	return &diag.Error{
		What: "no destination",
		Hint: "Give at least one --destination, or --no-push if the image shall not be pushed.",
	}
}

func (r *Request) validatePlatforms() error {
	_, err := r.multiPlatform()
	return err
}

func (r *Request) validateCompression() error {
	switch r.Compression {
	case "", "gzip", "zstd":
		return nil
	}
	return &diag.Error{What: fmt.Sprintf("unknown compression %q", r.Compression), Hint: "Use gzip or zstd."}
}

// validateLater refuses what has a place in the request already, but is not built.
func (r *Request) validateLater() error {
	var errs []error
	if r.Jobs < 0 {
		errs = append(errs, fmt.Errorf("--jobs %d: there is no such number of steps", r.Jobs))
	}
	for _, later := range []struct {
		what string
		n    int
	}{{"--secret", len(r.Secrets)}, {"--cache-from", len(r.CacheSources)}} {
		if later.n > 0 {
			errs = append(errs, fmt.Errorf("%s is not supported yet", later.what))
		}
	}
	return errors.Join(errs...)
}
