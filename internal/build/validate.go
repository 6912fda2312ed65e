package build

import (
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/sandbox/choice"
)

// Validate says what of the request cannot be.
func (r *Request) Validate() error {
	return errors.Join(
		r.validateOutputs(), r.validatePlatforms(), r.validateFormat(), r.validateAttestations(), r.validateSigning(), r.validateNetwork(), r.validateCache(),
		r.validateSteps(), r.validateBases(),
	)
}

func (r *Request) validateOutputs() error {
	o := &r.Outputs
	if len(o.Destinations) > 0 || len(o.Repositories) > 0 || len(o.Exports) > 0 || o.NoPush || r.DryRun {
		return nil
	}
	return &diag.Error{
		What: "no destination",
		Hint: "Give at least one --destination, or --no-push if the image shall not be pushed.",
	}
}

// validatePlatforms finds what several platforms cannot have.
func (r *Request) validatePlatforms() error {
	platforms, err := r.platforms()
	if err != nil {
		return err
	}
	index, err := r.hasIndex()
	if err != nil {
		return err
	}
	if r.archives() && index && !r.Attestations.any() { // they have an error of their own
		return &diag.Error{
			What: "a docker archive holds one image, but an index over platforms is to be built",
			Hint: "Build for one --platform, or write an OCI archive with --output type=oci,dest=FILE.",
		}
	}
	if a := r.Annotations.NeedIndex(); a != nil && !index {
		return &diag.Error{
			What: fmt.Sprintf("annotation %s: an image for one platform has no index", a.Key),
			Hint: "Build for several platforms, or leave out \"" + string(a.Level) + ":\".",
		}
	}
	for _, a := range r.Annotations {
		built := func(p ocispec.Platform) bool { return image.FormatPlatform(p) == a.Platform || p.OS == "" }
		if a.Platform != "" && !slices.ContainsFunc(platforms, built) {
			return fmt.Errorf("annotation %s: platform %s is not built", a.Key, a.Platform)
		}
	}
	return nil
}

// archives says whether a docker archive is to be written.
func (r *Request) archives() bool {
	return r.Outputs.TarPath != "" || slices.ContainsFunc(r.Outputs.Exports, func(e output.Export) bool { return e.Kind == output.Docker })
}

// validateFormat finds what a format or a compression cannot hold.
func (r *Request) validateFormat() error {
	if r.Compression != "" && r.layers().Compression.String() != r.Compression {
		return &diag.Error{What: fmt.Sprintf("unknown compression %q", r.Compression), Hint: "Use gzip or zstd."}
	}
	if err := r.layers().Validate(); err != nil {
		return err
	}
	if r.Format == "" {
		return nil
	}
	format, err := image.ParseFormat(r.Format)
	switch {
	case err != nil:
		return err
	case format == image.Docker && r.Compression == "zstd":
		return &diag.Error{What: "an image in docker's format cannot have zstd layers", Hint: "Use --image-format=oci, or --compression=gzip."}
	case format == image.Docker && len(r.Annotations) > 0:
		return &diag.Error{What: "an image in docker's format cannot have annotations", Hint: "Use --image-format=oci."}
	}
	return nil
}

// layers says how new layers are stored.
func (r *Request) layers() layer.WriteOptions {
	opts := layer.WriteOptions{Level: r.CompressionLevel, Docker: true}
	switch r.Compression {
	case "zstd":
		opts.Compression, opts.Docker = layer.Zstd, false
	case "uncompressed":
		opts.Compression = layer.Uncompressed
	}
	return opts
}

func (r *Request) validateNetwork() error {
	switch r.Network {
	case "", "default", "host", "none":
		return nil
	}
	return &diag.Error{What: fmt.Sprintf("unknown network %q", r.Network), Hint: "Use default, host or none."}
}

// validateSteps finds what is wrong with how steps are to run.
func (r *Request) validateSteps() error {
	if r.Jobs < 0 {
		return fmt.Errorf("--jobs %d: there is no such number of steps", r.Jobs)
	}
	if !choice.Mode(r.Sandbox).Valid() {
		return &diag.Error{What: fmt.Sprintf("there is no sandbox %q", r.Sandbox), Hint: "Use auto, native or sentry."}
	}
	return nil
}
