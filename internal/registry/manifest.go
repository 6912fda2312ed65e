package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/web"

	// Digests of both algorithms that the OCI image specification registers can be checked.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// Media types of Docker's formats, beside the OCI ones in image-spec.
const (
	DockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	DockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	DockerSchema1      = "application/vnd.docker.distribution.manifest.v1+json"
	DockerSchema1JWS   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	DockerConfig       = "application/vnd.docker.container.image.v1+json"
	DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
)

// Manifest is a manifest or an index as the registry has it.
type Manifest struct {
	// MediaType is what the registry calls it, without parameters; it may be wrong.
	MediaType string
	// Digest is that of Data.
	Digest digest.Digest
	Data   []byte
}

// Manifest fetches the manifest or index that a tag or digest names. If it is a digest, Data has it.
func (r *Repository) Manifest(ctx context.Context, identifier string) (*Manifest, error) {
	m, err := r.manifest(ctx, identifier)
	if err != nil {
		return nil, r.explain(ctx, "fetch the manifest of "+r.Name()+separator(identifier)+identifier, err)
	}
	return m, nil
}

// separator is what stands between a repository's name and a tag or digest.
func separator(identifier string) string {
	if strings.Contains(identifier, ":") {
		return "@"
	}
	return ":"
}

func (r *Repository) manifest(ctx context.Context, identifier string) (*Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, call{
		method: http.MethodGet,
		url:    r.url("manifests", identifier),
		header: http.Header{"Accept": {strings.Join(acceptedManifests(), ", ")}},
		want:   []int{http.StatusOK},
	})
	if err != nil {
		return nil, err
	}
	data, err := readSmall(resp, manifestLimit)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	m := &Manifest{MediaType: mediaType(resp.Header.Get("Content-Type")), Digest: digest.FromBytes(data), Data: data}
	if want := digest.Digest(identifier); want.Validate() == nil {
		if got := want.Algorithm().FromBytes(data); got != want {
			return nil, refuse("the registry sent a manifest with digest %s instead", got)
		}
		m.Digest = want
	}
	return m, nil
}

// acceptedManifests includes schema 1, so that we see it and can say what is wrong, where else
// a registry would convert it or say "not found".
func acceptedManifests() []string {
	return []string{
		ocispec.MediaTypeImageIndex, DockerManifestList,
		ocispec.MediaTypeImageManifest, DockerManifest,
		DockerSchema1JWS + ";q=0.1", DockerSchema1 + ";q=0.1",
	}
}

// mediaType is the header's value without parameters, in lower case.
func mediaType(header string) string {
	t, _, err := mime.ParseMediaType(header)
	if err != nil {
		return ""
	}
	return t
}

// readSmall reads a whole body that may have at most limit bytes, and closes it.
func readSmall(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close() // nothing is lost: the data has been read
	if resp.ContentLength > limit {
		return nil, errBodyTooLarge
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, errBodyTooLarge
	}
	return data, nil
}

// PutManifest stores a manifest or index under a tag or its digest. Everything it names must be there. A registry that does
// not find it at once is asked again: storage behind it may be behind, or another client may be writing the same blob.
func (r *Repository) PutManifest(ctx context.Context, identifier, mediaType string, data []byte) error {
	what := "push the manifest of " + r.Name() + separator(identifier) + identifier
	for try := 1; ; try++ {
		err := r.putManifest(ctx, identifier, mediaType, data)
		if err == nil || try == web.MaxTries || ctx.Err() != nil || !missesContent(err) {
			return r.explain(ctx, what, err)
		}
		r.debug(fmt.Sprintf("%s again: %s", what, redactError(err)))
		if err := web.Sleep(ctx, r.client.options.RetryDelay<<(try-1)); err != nil {
			return r.explain(ctx, what, err)
		}
	}
}

func (r *Repository) putManifest(ctx context.Context, identifier, mediaType string, data []byte) error {
	resp, err := r.send(ctx, call{
		method: http.MethodPut,
		url:    r.url("manifests", identifier),
		header: http.Header{"Content-Type": {mediaType}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		size:   int64(len(data)),
		want:   []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	if err != nil {
		return err
	}
	web.Discard(resp.Body)
	return nil
}

// missesContent says whether the registry does not see what a manifest names. DIGEST_INVALID is what distribution 2.8 says
// of a blob that is being linked into the repository by somebody else.
func missesContent(err error) bool {
	var answer *ResponseError
	return errors.As(err, &answer) && answer.Has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "MANIFEST_UNKNOWN", "DIGEST_INVALID")
}

// Config fetches a small blob whole: an image configuration. It is verified.
func (r *Repository) Config(ctx context.Context, want ocispec.Descriptor) ([]byte, error) {
	what := "fetch the configuration of " + r.Name() + "@" + want.Digest.String()
	if want.Size > configLimit {
		return nil, r.explain(ctx, what, errBodyTooLarge)
	}
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	b, err := r.Blob(ctx, want)
	if err != nil {
		return nil, err
	}
	defer b.Close() // read only: nothing to lose
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, r.explain(ctx, what, err)
	}
	return data, nil
}
