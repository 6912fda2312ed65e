package build_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
)

// A context that goes through standard input is the one that goes to a registry, byte for byte; its Dockerfile is known to whoever
// sends it, also if it is an archive or nothing else.
func TestPackedContext(t *testing.T) {
	t.Parallel()
	r := registrytest.New()
	host := r.Start(t)
	dir, at := t.TempDir(), time.Unix(1000, 0)
	var archived bytes.Buffer
	w := tar.NewWriter(&archived)
	for _, f := range []struct{ name, text string }{{".dockerignore", "left-out\n"}, {"Dockerfile", "FROM r.example/base\n"}, {"a", "a"}, {"left-out", "x"}} {
		path := filepath.Join(dir, f.name)
		err := errors.Join(os.WriteFile(path, []byte(f.text), 0o600), os.Chtimes(path, at, at),
			w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o600, Size: int64(len(f.text)), ModTime: at}))
		if _, werr := io.WriteString(w, f.text); errors.Join(err, werr) != nil {
			t.Fatal(err, werr)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	only := "FROM r.example/base\n"
	var digests []digest.Digest
	for _, test := range []struct{ place, input string }{{dir, ""}, {"-", archived.String()}, {"-", only}} {
		env := func() build.Env {
			return build.Env{
				Now: func() time.Time { return at }, Getenv: func(string) string { return "" }, Cwd: t.TempDir(), Stdout: io.Discard, Events: event.Discard{},
				Stdin: strings.NewReader(test.input),
			}
		}
		req := build.Request{Context: test.place, WorkDir: t.TempDir(), Compression: "zstd", Registry: build.Registry{Insecure: true}}
		packed, err := build.PackContext(t.Context(), env(), req)
		if err != nil {
			t.Fatal(err)
		}
		defer packed.Close() //nolint:errcheck // only read
		for range 2 {        // a pod that is made again gets the same
			if d, err := digest.FromReader(packed.Reader()); err != nil || d != packed.Digest() {
				t.Errorf("%s, want %s: %v", d, packed.Digest(), err)
			}
		}
		sent, err := build.PushContextOnce(t.Context(), env(), req, host+"/contexts", "job")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(sent.Reference, host+"/contexts@") || sent.Size != packed.Size() || sent.Entries != packed.Entries {
			t.Errorf("pushed %+v, packed %d bytes of %d entries", sent.Pushed, packed.Size(), packed.Entries)
		}
		if string(packed.Dockerfile) != only || string(sent.Dockerfile) != only {
			t.Errorf("%s: Dockerfile %q and %q", test.place, packed.Dockerfile, sent.Dockerfile)
		}
		digests = append(digests, packed.Digest())
	}
	if digests[0] != digests[1] || digests[1] == digests[2] {
		t.Errorf("a directory, its archive, and a Dockerfile alone: %s", digests)
	}
}

// TestDeleteContext deletes a context, and nothing else that somebody has named as one.
func TestDeleteContext(t *testing.T) {
	t.Parallel()
	r := registrytest.New()
	host := r.Start(t)
	env := build.Env{Now: time.Now, Getenv: func(string) string { return "" }, Cwd: t.TempDir(), Stdout: io.Discard, Events: event.Discard{}, Stdin: strings.NewReader("FROM scratch\n")}
	insecure := build.Registry{Insecure: true, InsecurePull: true}
	sent, err := build.PushContextOnce(t.Context(), env, build.Request{Context: "-", WorkDir: t.TempDir(), Registry: insecure}, host+"/contexts", "job")
	if err != nil {
		t.Fatal(err)
	}
	const kind = "application/vnd.oci.image.manifest.v1+json"
	image := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":0},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%[2]q,"size":0}]}`, kind, digest.FromString(""))
	put, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/app/manifests/1", strings.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	put.Header.Set("Content-Type", kind)
	resp, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is empty
	for _, test := range []struct {
		ref, says string
		deletions int
	}{{host + "/app:1", "is not a build context: it is an image", 0}, {sent.Reference, "", 1}, {sent.Reference, "", 1}} {
		err := build.DeleteContext(t.Context(), env, insecure, test.ref)
		if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
			t.Errorf("%s: got %v, want %q", test.ref, err, test.says)
		}
		if n := r.Count(http.MethodDelete, "/manifests/"); n != test.deletions {
			t.Errorf("%s: %d deletions, want %d", test.ref, n, test.deletions)
		}
	}
}
