package registry_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/diag"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// referrer is a manifest of the artifact type "test/type" about the subject.
func referrer(t *testing.T, subject digest.Digest, n int) registry.Referrer {
	t.Helper()
	data, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "test/type",
		Config: ocispec.DescriptorEmptyJSON, Layers: []ocispec.Descriptor{ocispec.DescriptorEmptyJSON},
		Subject:     &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: subject, Size: 1},
		Annotations: map[string]string{"number": fmt.Sprint(n)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return registry.Referrer{
		Descriptor: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data)), ArtifactType: "test/type",
			Annotations: map[string]string{"number": fmt.Sprint(n)},
		},
		Data: data, Subject: subject,
	}
}

func subjectTag(d digest.Digest) string { return strings.Replace(d.String(), ":", "-", 1) }

// listed reads the index under the fallback tag.
func listed(t *testing.T, r *registry.Repository, subject digest.Digest) []ocispec.Descriptor {
	t.Helper()
	m, err := r.Manifest(t.Context(), subjectTag(subject))
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	var index ocispec.Index
	if err := json.Unmarshal(m.Data, &index); err != nil {
		t.Fatal(err)
	}
	return index.Manifests
}

func TestReferrersAPI(t *testing.T) {
	t.Parallel()
	reg := registrytest.NewWithReferrers()
	r := open(t, quick(), reg.Start(t)+"/a", registry.Push)
	subject := digest.FromString("subject")
	if err := r.PutReferrer(t.Context(), referrer(t, subject, 1)); err != nil {
		t.Fatal(diag.Format(err))
	}
	if n := reg.Count(http.MethodPut, "/manifests/sha256-"); n != 0 {
		t.Error("the fallback tag was written")
	}
}

func TestReferrersTag(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	r := open(t, quick(), reg.Start(t)+"/a", registry.Push)
	subject := digest.FromString("subject")
	var want []ocispec.Descriptor
	for n := range 3 {
		ref := referrer(t, subject, n)
		want = append(want, ref.Descriptor)
		for range 2 { // the second time it is there already
			if err := r.PutReferrer(t.Context(), ref); err != nil {
				t.Fatal(diag.Format(err))
			}
		}
	}
	if diff := cmp.Diff(want, listed(t, r, subject)); diff != "" {
		t.Error(diff)
	}
}

// TestReferrersTagOfManyBuilds adds referrers from many clients at once: none may get lost.
func TestReferrersTagOfManyBuilds(t *testing.T) {
	t.Parallel()
	host := registrytest.New().Start(t)
	subject := digest.FromString("subject")
	const builds = 4
	var g errgroup.Group
	for n := range builds {
		r, ref := open(t, quick(), host+"/a", registry.Push), referrer(t, subject, n)
		g.Go(func() error { return r.PutReferrer(t.Context(), ref) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(diag.Format(err))
	}
	if got := listed(t, open(t, quick(), host+"/a", registry.Pull), subject); len(got) != builds {
		t.Errorf("got %d referrers, want %d: %v", len(got), builds, got)
	}
}

// rival replaces the list of referrers after others have written it, a number of times.
type rival struct {
	http.Handler
	list []byte

	mu    sync.Mutex
	times int
}

func (r *rival) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.Handler.ServeHTTP(w, req)
	r.mu.Lock()
	defer r.mu.Unlock()
	if req.Method != http.MethodPut || !strings.Contains(req.URL.Path, "/manifests/sha256-") || r.times == 0 {
		return
	}
	r.times--
	again := httptest.NewRequestWithContext(req.Context(), http.MethodPut, req.URL.String(), bytes.NewReader(r.list))
	again.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	r.Handler.ServeHTTP(httptest.NewRecorder(), again)
}

func TestReferrersTagIsMerged(t *testing.T) {
	t.Parallel()
	subject := digest.FromString("subject")
	other := referrer(t, subject, 100)
	list, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{other.Descriptor}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&rival{Handler: registrytest.New(), list: list, times: 2})
	t.Cleanup(server.Close)
	r := open(t, quick(), strings.TrimPrefix(server.URL, "http://")+"/a", registry.Push)
	if err := r.PutManifest(t.Context(), other.Descriptor.Digest.String(), other.Descriptor.MediaType, other.Data); err != nil {
		t.Fatal(diag.Format(err))
	}
	ref := referrer(t, subject, 1)
	if err := r.PutReferrer(t.Context(), ref); err != nil {
		t.Fatal(diag.Format(err))
	}
	got := listed(t, r, subject)
	for _, want := range []registry.Referrer{ref, other} {
		if !slices.ContainsFunc(got, func(d ocispec.Descriptor) bool { return d.Digest == want.Descriptor.Digest }) {
			t.Errorf("%s got lost: %v", want.Descriptor.Digest, got)
		}
	}
}

func TestReferrersFailures(t *testing.T) {
	t.Parallel()
	subject := digest.FromString("subject")
	for name, c := range map[string]struct {
		fault registrytest.Fault
		want  string
	}{
		"manifest refused": {registrytest.Fault{Method: http.MethodPut, Path: "/manifests/sha256:", Status: http.StatusForbidden}, "push a referrer of"},
		"api refused":      {registrytest.Fault{Method: http.MethodGet, Path: "/referrers/", Status: http.StatusUnauthorized}, "push a referrer of"},
		"tag refused":      {registrytest.Fault{Method: http.MethodPut, Path: "/manifests/sha256-", Status: http.StatusForbidden}, "push the manifest of"},
		"tag is no list": {registrytest.Fault{
			Method: http.MethodGet, Path: "/manifests/sha256-", Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>",
		}, "should be a list of referrers"},
		"tag is endless": {registrytest.Fault{Method: http.MethodGet, Path: "/manifests/sha256-", Endless: true}, "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.Inject(c.fault)
			r := open(t, quick(), reg.Start(t)+"/a", registry.Push)
			err := r.PutReferrer(t.Context(), referrer(t, subject, 1))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestReferrersPage has a registry that answers every question with a page.
func TestReferrersPage(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Inject(registrytest.Fault{Method: http.MethodGet, Path: "/referrers/", Status: http.StatusOK, Body: "<html>"})
	r := open(t, quick(), reg.Start(t)+"/a", registry.Push)
	subject := digest.FromString("subject")
	if err := r.PutReferrer(t.Context(), referrer(t, subject, 1)); err != nil {
		t.Fatal(diag.Format(err))
	}
	if got := listed(t, r, subject); len(got) != 1 {
		t.Error(got)
	}
}
