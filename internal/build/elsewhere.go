package build

import (
	"context"
	"errors"
	"net/http"

	"hako/internal/contextartifact"
	"hako/internal/contextsource"
	"hako/internal/output"
	"hako/internal/registry"
)

// What a build that runs elsewhere, as a Job of a cluster, needs done here.

// PinContext is the place of the context of req with the commit or digest that it stands for at the moment. pinned is false, and
// the place as it was, if it has none. It fetches nothing. What the user can mend is a *diag.Error.
func PinContext(ctx context.Context, env Env, req Request) (place string, pinned bool, err error) {
	b := newBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openSecrets(); err != nil {
		return "", false, err
	}
	if err := b.openFetchers(); err != nil {
		return "", false, err
	}
	return contextsource.Pin(ctx, b.trees.options, contextsource.Request{
		Place: req.Context, Title: "build context", Flag: "--context", SubPath: req.ContextSubPath, Git: b.git(),
	})
}

// WriteFiles writes the files of o that tell of a result which was made elsewhere.
func WriteFiles(ctx context.Context, env Env, req Request, d output.Described) (err error) {
	b := &builder{life: ctx, env: env, req: Request{Registry: req.Registry, Outputs: filesOnly(req.Outputs)}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openClient(); err != nil {
		return err
	}
	if err := b.openOutput(); err != nil {
		return err
	}
	return b.output.WriteFiles(ctx, d)
}

// filesOnly are outputs without the result itself.
func filesOnly(o Outputs) Outputs {
	o.TarPath, o.OCILayoutPath, o.Exports = "", "", nil
	return o
}

// DeleteContext deletes a context that PushContextOnce has pushed: ref may be from others' hands, so what is no context is left
// alone, with an error. One that is gone is no error. That the registry deletes nothing is registry.ErrNoDelete.
func DeleteContext(ctx context.Context, env Env, r Registry, ref string) (err error) {
	b := &builder{life: ctx, env: env, req: Request{Registry: r}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openClient(); err != nil {
		return err
	}
	if _, err := contextartifact.Find(ctx, b.client, ref); err != nil {
		if gone := new(registry.ResponseError); errors.As(err, &gone) && gone.Status == http.StatusNotFound {
			return nil
		}
		return err
	}
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		return err
	}
	return b.client.Repository(parsed.Context(), registry.Delete).Delete(ctx, parsed.Identifier())
}

// DockerConfig is the text of a config.json with the credentials that this user has for the repositories of references
// ("registry/repository"), and none for others; nil if there are none. It asks no registry.
func DockerConfig(ctx context.Context, env Env, r Registry, references []string) (_ []byte, err error) {
	b := &builder{life: ctx, env: env, req: Request{Registry: r}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openClient(); err != nil {
		return nil, err
	}
	return b.client.DockerConfig(ctx, references)
}
