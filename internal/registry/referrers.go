package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/web"
)

// Referrer is a manifest that says of another one, its subject, that it belongs to it (OCI distribution-spec 1.1).
type Referrer struct {
	// Descriptor is that of Data, with the artifact type and the annotations that a list of referrers shows.
	Descriptor ocispec.Descriptor
	Data       []byte
	// Subject is the digest of the manifest that it refers to. That need not be in the repository yet.
	Subject digest.Digest
}

// PutReferrer stores the manifest under its digest, and makes sure that those who ask for what belongs to the subject are told:
// by the registry itself if it can, else by the index under the tag that the specification names for registries that cannot.
// Everything that the manifest names must be there. It may be called from many goroutines, and other programs may do
// the same at the same time: entries of theirs are kept.
func (r *Repository) PutReferrer(ctx context.Context, ref Referrer) error {
	d := ref.Descriptor
	what := "push a referrer of " + r.Name() + "@" + ref.Subject.String()
	resp, err := r.send(ctx, call{
		method: http.MethodPut,
		url:    r.url("manifests", d.Digest.String()),
		header: http.Header{"Content-Type": {d.MediaType}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(ref.Data)), nil },
		size:   int64(len(ref.Data)),
		want:   []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	if err != nil {
		return r.explain(ctx, what, err)
	}
	told := resp.Header.Get("OCI-Subject") == ref.Subject.String()
	web.Discard(resp.Body)
	if !told {
		told, err = r.lists(ctx, ref)
	}
	if err == nil && !told {
		err = r.addReferrer(ctx, ref)
	}
	if err != nil {
		return r.explain(ctx, what, err)
	}
	return nil
}

// lists says whether the registry itself tells of the referrer. Older ones keep quiet about that they do when a manifest is
// stored, so it has to be asked.
func (r *Repository) lists(ctx context.Context, ref Referrer) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, call{
		method: http.MethodGet,
		url:    r.url("referrers", ref.Subject.String()),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		want:   []int{http.StatusOK},
	})
	var answer *ResponseError
	if errors.As(err, &answer) && answer.Status < 500 && answer.Status != http.StatusUnauthorized && answer.Status != http.StatusTooManyRequests {
		return false, nil // it does not know the question
	}
	if err != nil {
		return false, err
	}
	more := resp.Header.Get("Link") != ""
	data, err := readSmall(resp, manifestLimit)
	if err != nil {
		return false, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return false, nil //nolint:nilerr // an answer to another question: some registries answer every GET with a page
	}
	return more || names(&index, ref.Descriptor.Digest), nil
}

func names(index *ocispec.Index, d digest.Digest) bool {
	return slices.ContainsFunc(index.Manifests, func(m ocispec.Descriptor) bool { return m.Digest == d })
}

const (
	// referrerTries is how often the index of referrers is written before we give up.
	referrerTries = 8
	// referrerPause is how long we wait before we look whether our first write lasted, longer than anybody needs
	// between reading and writing; the next times it is doubled.
	referrerPause = 100 * time.Millisecond
)

// addReferrer adds a referrer to the index under the subject's tag. There is no way to write only if nobody else did: so the
// index is read again a little after it was written, and if somebody else's write has replaced ours, it is merged and
// written again.
func (r *Repository) addReferrer(ctx context.Context, ref Referrer) error {
	r.referrers.Lock()
	defer r.referrers.Unlock()
	tag := referrersTag(ref.Subject)
	for try := range referrerTries {
		if try > 0 {
			if err := web.Sleep(ctx, referrerPause<<(try-1)); err != nil {
				return err
			}
		}
		index, err := r.referrerIndex(ctx, tag)
		if err != nil {
			return err
		}
		if names(index, ref.Descriptor.Digest) {
			return nil
		}
		index.Manifests = append(index.Manifests, ref.Descriptor)
		data, err := json.Marshal(index)
		if err != nil {
			return err
		}
		if len(data) > manifestLimit {
			return fmt.Errorf("the list of referrers under %s is full", tag)
		}
		if err := r.PutManifest(ctx, tag, ocispec.MediaTypeImageIndex, data); err != nil {
			return err
		}
	}
	return &diag.Error{
		What: fmt.Sprintf("the list of referrers under the tag %s was replaced by others %d times", tag, referrerTries),
		Hint: "Run fewer builds that sign the same image at the same time, or use a registry with the referrers API.",
	}
}

// referrersTag is the tag for a subject: "sha256-e3b0…" (distribution-spec, "Referrers Tag Schema").
func referrersTag(d digest.Digest) string {
	algorithm, value := d.Algorithm().String(), d.Encoded()
	return algorithm[:min(len(algorithm), 32)] + "-" + value[:min(len(value), 64)]
}

// referrerIndex reads the index under a tag; a tag that does not exist is an empty one.
func (r *Repository) referrerIndex(ctx context.Context, tag string) (*ocispec.Index, error) {
	empty := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	m, err := r.manifest(ctx, tag)
	var answer *ResponseError
	if errors.As(err, &answer) && answer.Status == http.StatusNotFound {
		return empty, nil
	}
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(m.Data, &index); err != nil || m.MediaType != ocispec.MediaTypeImageIndex {
		return nil, &diag.Error{
			What: fmt.Sprintf("the tag %s should be a list of referrers, but is of type %q", tag, m.MediaType),
			Hint: "Delete that tag: its name is reserved for such lists.",
		}
	}
	return &index, nil
}
