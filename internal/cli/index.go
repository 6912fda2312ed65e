package cli

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/image"
)

func indexFlagNames() []string {
	return append([]string{
		"destination", "tag", "annotation", "image-format", "sign", "sign-key", "source-date-epoch", "metadata-file", "iidfile", "insecure-pull", "skip-tls-verify-pull",
	}, pushFlagNames()...)
}

// indexCommand is "hako index", which makes one image for several platforms of images that were built for each.
func (c *command) indexCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "index IMAGE…", Short: "Make one image of images that were built for different platforms", Args: someOperands("name the images to join"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.index(cmd.Context(), args) },
	}
	c.some(cmd, indexFlagNames())
	usageOf(cmd, indexFlagNames())
	return cmd
}

// index joins images.
func (c *command) index(ctx context.Context, images []string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	vs := c.vs
	req := build.IndexRequest{
		Images: images, Registry: c.registry(vs), Format: vs.str("image-format"), WorkDir: firstSet(vs.str("kaniko-dir"), c.getenv("KANIKO_DIR")),
		Outputs: build.Outputs{
			Destinations: slices.Concat(vs.list("destination"), vs.list("tag")), DigestFile: vs.str("digest-file"),
			NameWithDigestFile: vs.str("image-name-with-digest-file"), NameTagWithDigestFile: vs.str("image-name-tag-with-digest-file"),
			MetadataFile: vs.str("metadata-file"), IIDFile: vs.str("iidfile"),
			PushRetries: vs.int("push-retry"), IgnoreImmutableTags: vs.bool("push-ignore-immutable-tag-errors"),
			SkipPushPermissionCheck: vs.bool("skip-push-permission-check"), BuilderOutputDir: c.getenv("BUILDER_OUTPUT"),
		},
	}
	var errs []error
	if req.Outputs.PushRetries < 0 {
		errs = append(errs, errors.New("--push-retry must not be negative"))
	}
	var err error
	if req.Annotations, err = annotations(vs.list("annotation")); err != nil {
		errs = append(errs, err)
	}
	if req.Signing, err = c.signing(vs); err != nil {
		errs = append(errs, err)
	}
	if req.Epoch, err = build.ParseEpoch(firstSet(vs.str("source-date-epoch"), c.getenv("SOURCE_DATE_EPOCH"))); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	result, err := build.Index(ctx, c.buildEnv(c.ui), req)
	if err != nil {
		return pushError{err}
	}
	reportTo(c.ui, result)
	return nil
}

// annotations reads all --annotation.
func annotations(given []string) (image.Annotations, error) {
	var out image.Annotations
	for _, text := range given {
		as, err := image.ParseAnnotation(text)
		if err != nil {
			return nil, err
		}
		out = append(out, as...)
	}
	return out, nil
}
