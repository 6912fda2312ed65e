package contextartifact_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"hako/internal/archive"
	"hako/internal/contextartifact"
	"hako/internal/diag"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
	"hako/internal/tree/treetest"
)

const text = "Dockerfile 0644 0:0 @7 = FROM scratch\n a/ 0711 0:0 @7\n a/b 04755 0:0 @7 = content\n a/c => a/b\n l 0:0 @7 -> a"

// bed is a registry and a client of it.
type bed struct {
	*registrytest.Registry
	host   string
	client *registry.Client
}

func newBed(t *testing.T) *bed {
	t.Helper()
	b := &bed{Registry: registrytest.New()}
	b.host = b.Start(t)
	var err error
	b.client, err = registry.New(registry.Options{InsecureRegistries: []string{b.host}, RetryDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	return b
}

func file(t *testing.T) func(string) (*os.File, error) {
	return func(name string) (*os.File, error) { return os.CreateTemp(t.TempDir(), name) }
}

func (b *bed) push(t *testing.T, ref string, o contextartifact.Options) *contextartifact.Pushed {
	t.Helper()
	o.File = file(t)
	p, err := contextartifact.Push(t.Context(), b.client, b.host+"/"+ref, treetest.New(t, text), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPush(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.push(t, "team/ctx:main", contextartifact.Options{})
	if p.Entries != 5 || !strings.HasPrefix(p.Reference, b.host+"/team/ctx@sha256:") {
		t.Errorf("pushed %+v", p)
	}
	for _, ref := range []string{"team/ctx:main", "team/ctx@" + p.Digest.String(), "team/ctx:other@" + p.Digest.String()} {
		a, err := contextartifact.Find(t.Context(), b.client, contextartifact.Scheme+b.host+"/"+ref)
		if err != nil {
			t.Fatal(err)
		}
		if a.Digest != p.Digest || a.Layer.Size != p.Size {
			t.Errorf("%s: found %+v, want %+v", ref, a, p)
		}
		r, err := a.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := dump(t, r); got != want(t) {
			t.Errorf("%s holds\n%s", ref, got)
		}
	}
	before := b.Count(http.MethodPost, "/blobs/uploads/")
	if again := b.push(t, "team/ctx", contextartifact.Options{}); *again != *p {
		t.Errorf("pushed again: %+v, want %+v", again, p)
	}
	if now := b.Count(http.MethodPost, "/blobs/uploads/"); now != before {
		t.Errorf("%d uploads of what was there", now-before)
	}
	if other := b.push(t, "team/ctx", contextartifact.Options{Gzip: true, Annotations: map[string]string{"a": "b"}}); other.Digest == p.Digest {
		t.Error("other options, same digest")
	}
}

// The bytes do not depend on the number of processors. It is not parallel: it changes that.
func TestSameBytesOnAnyMachine(t *testing.T) {
	b := newBed(t)
	first := b.push(t, "ctx", contextartifact.Options{})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if again := b.push(t, "ctx", contextartifact.Options{}); again.Digest != first.Digest {
		t.Errorf("%s, want %s", again.Digest, first.Digest)
	}
}

func want(t *testing.T) string {
	t.Helper()
	s, err := treetest.Dump(treetest.New(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func dump(t *testing.T, r io.ReadCloser) string {
	t.Helper()
	defer r.Close() //nolint:errcheck // nothing was written
	z, err := zstd.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	tr, err := archive.Unpack(t.Context(), z, archive.Options{File: file(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close() //nolint:errcheck // nothing was written
	s, err := treetest.Dump(tr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestNoContext(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	repo := "/v2/x/manifests/"
	for name, body := range map[string]string{
		"an index":      `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		"an image":      `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[{}]}`,
		"two layers":    `{"schemaVersion":2,"artifactType":"application/vnd.hako.context.v1","layers":[{},{}]}`,
		"no layer":      `{"schemaVersion":2,"artifactType":"application/vnd.hako.context.v1"}`,
		"no manifest":   `[]`,
		"docker images": `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[{}]}`,
	} {
		media := "application/vnd.oci.image.manifest.v1+json"
		if name == "an index" {
			media = "application/vnd.oci.image.index.v1+json"
		}
		b.Inject(registrytest.Fault{Method: http.MethodGet, Path: repo, Times: 1, Status: 200, Body: body, Header: http.Header{"Content-Type": {media}}})
		_, err := contextartifact.Find(t.Context(), b.client, b.host+"/x:1")
		var d *diag.Error
		if !errors.As(err, &d) || !strings.Contains(d.Hint, "hako push-context") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	p := b.push(t, "ctx", contextartifact.Options{})
	a, err := contextartifact.Find(t.Context(), b.client, b.host+"/ctx@"+p.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	b.Inject(registrytest.Fault{Method: http.MethodGet, Path: "/blobs/", Times: 1, CutAfter: 50})
	r, err := a.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := dump(t, r); got != want(t) {
		t.Errorf("after a cut connection:\n%s", got)
	}
	b.Inject(registrytest.Fault{Method: http.MethodGet, Path: "/blobs/", Corrupt: true})
	if r, err = a.Open(t.Context()); err == nil {
		_, err = io.Copy(io.Discard, r)
		_ = r.Close() // nothing was written
	}
	if err == nil || !strings.Contains(err.Error(), "digest") {
		t.Errorf("a damaged layer: %v", err)
	}
	b.Inject(registrytest.Fault{Method: http.MethodPut, Path: "/manifests/", Status: http.StatusForbidden})
	_, err = contextartifact.Push(t.Context(), b.client, b.host+"/ctx:2", treetest.New(t, text), contextartifact.Options{File: file(t)})
	if !errors.As(err, new(*diag.Error)) {
		t.Errorf("a push that is refused: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := contextartifact.Push(ctx, b.client, b.host+"/ctx:3", treetest.New(t, text), contextartifact.Options{File: file(t)}); !errors.Is(err, why) {
		t.Errorf("a push that was stopped: %v", err)
	}
}
