package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// quick returns options for tests: no pauses worth the name.
func quick() registry.Options {
	return registry.Options{RetryDelay: time.Millisecond, IdleTimeout: 30 * time.Second, UserAgent: "hako/test"}
}

func open(t *testing.T, o registry.Options, ref string, access registry.Access) *registry.Repository {
	t.Helper()
	c, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	r, err := name.NewRepository(ref, name.WeakValidation)
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(r, access)
}

func blobOf(data []byte) registry.Blob {
	return registry.Blob{
		Digest: digest.FromBytes(data),
		Size:   int64(len(data)),
		Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		},
	}
}

func descriptorOf(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// noise is n bytes that differ from place to place.
func noise(n int) []byte {
	out := make([]byte, n)
	state := uint32(1)
	for i := range out {
		state = state*1664525 + 1013904223
		out[i] = byte(state >> 24)
	}
	return out
}

func read(t *testing.T, r *registry.Repository, want ocispec.Descriptor) ([]byte, error) {
	t.Helper()
	rc, err := r.Blob(t.Context(), want)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func mustUpload(t *testing.T, host, repo string, data []byte) {
	t.Helper()
	if err := open(t, quick(), host+"/"+repo, registry.Push).Upload(t.Context(), blobOf(data)); err != nil {
		t.Fatal(err)
	}
}

// wantError compares the whole of an error's text, with the host replaced, and its hint: the two lines of want.
func wantError(t *testing.T, err error, host string, want ...string) {
	t.Helper()
	var d *diag.Error
	if !errors.As(err, &d) {
		t.Fatalf("error %v is no diag.Error", err)
	}
	got := strings.ReplaceAll(d.Error()+"\n"+d.Hint, host, "HOST")
	if diff := cmp.Diff(strings.Join(want, "\n"), got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestUploadThenRead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 300_000} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			data := noise(size)
			push := open(t, quick(), host+"/a/b", registry.Push)
			if has, err := push.Has(t.Context(), digest.FromBytes(data)); has || err != nil {
				t.Fatalf("before: %v, %v", has, err)
			}
			if err := push.Upload(t.Context(), blobOf(data)); err != nil {
				t.Fatal(err)
			}
			if has, err := push.Has(t.Context(), digest.FromBytes(data)); !has || err != nil {
				t.Fatalf("after: %v, %v", has, err)
			}
			got, err := read(t, open(t, quick(), host+"/a/b", registry.Pull), descriptorOf(data))
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
			for _, q := range reg.Requests() {
				if q.UserAgent != "hako/test" {
					t.Errorf("%s %s came from %q", q.Method, q.Path, q.UserAgent)
				}
			}
		})
	}
}

func TestManifestRoundTrip(t *testing.T) {
	t.Parallel()
	host := registrytest.New().Start(t)
	config := []byte(`{}`)
	mustUpload(t, host, "a/b", config)
	data := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q,"size":2},"layers":[]}`, digest.FromBytes(config))
	push := open(t, quick(), host+"/a/b", registry.Push)
	if err := push.PutManifest(t.Context(), "v1", ocispec.MediaTypeImageManifest, data); err != nil {
		t.Fatal(err)
	}
	want := &registry.Manifest{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Data: data}
	pull := open(t, quick(), host+"/a/b", registry.Pull)
	for _, id := range []string{"v1", digest.FromBytes(data).String()} {
		got, err := pull.Manifest(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	_, err := pull.Manifest(t.Context(), "v2")
	wantError(t, err, host,
		"fetch the manifest of HOST/a/b:v2: GET http://HOST/v2/a/b/manifests/v2: 404 Not Found: MANIFEST_UNKNOWN: Unknown manifest",
		"Check the image's name and tag.")
}

func TestPassingFaultsAreRetried(t *testing.T) {
	t.Parallel()
	data := noise(200_000)
	for name, f := range map[string]registrytest.Fault{
		"unavailable":      {Status: 503, Times: 3},
		"too many":         {Status: 429, Header: http.Header{"Retry-After": {"0"}}, Times: 2},
		"request timeout":  {Status: 408, Times: 1},
		"reset":            {Reset: true, Times: 2},
		"hang":             {Hang: true, Times: 1},
		"ping":             {Path: "/v2/", Status: 500, Times: 3},
		"start of upload":  {Method: "POST", Status: 502, Times: 2},
		"content":          {Method: "PATCH", Status: 500, Times: 2},
		"content reset":    {Method: "PATCH", Reset: true, Times: 2},
		"commit":           {Method: "PUT", Status: 500, Times: 1},
		"commit lost":      {Method: "PUT", LoseAnswer: true, Times: 1},
		"upload forgotten": {Method: "PUT", Status: 404, Body: `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}`, Times: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.Inject(f)
			o := quick()
			o.IdleTimeout = time.Second // long enough for a busy machine
			host := reg.Start(t)
			if err := open(t, o, host+"/a/b", registry.Push).Upload(t.Context(), blobOf(data)); err != nil {
				t.Fatal(err)
			}
			got, err := read(t, open(t, quick(), host+"/a/b", registry.Pull), descriptorOf(data))
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
		})
	}
}

// TestManifestBeforeItsBlobsAreSeen lets a registry not find at first what a manifest names.
func TestManifestBeforeItsBlobsAreSeen(t *testing.T) {
	t.Parallel()
	const unknown = `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`
	const linked = `{"errors":[{"code":"DIGEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN"}]}`
	data := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	for name, tc := range map[string]struct {
		fault registrytest.Fault
		tries int
		fails bool
	}{
		"seen late":   {registrytest.Fault{Status: 400, Body: unknown, Times: 3}, 4, false},
		"being made":  {registrytest.Fault{Status: 400, Body: linked, Times: 1}, 2, false},
		"never there": {registrytest.Fault{Status: 400, Body: unknown}, 4, true},
		"bad":         {registrytest.Fault{Status: 400, Body: `{"errors":[{"code":"MANIFEST_INVALID"}]}`}, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			tc.fault.Method = "PUT"
			reg.Inject(tc.fault)
			host := reg.Start(t)
			err := open(t, quick(), host+"/a", registry.Push).PutManifest(t.Context(), "1", ocispec.MediaTypeImageIndex, data)
			if (err != nil) != tc.fails {
				t.Error(err)
			}
			if n := reg.Count("PUT", "/manifests/1"); n != tc.tries {
				t.Errorf("%d tries, want %d", n, tc.tries)
			}
		})
	}
}

func TestLastingFaultsEnd(t *testing.T) {
	t.Parallel()
	data := noise(1000)
	reg := registrytest.New()
	reg.Inject(registrytest.Fault{Method: "POST", Status: 503, Body: "<html>secret</html>", Header: http.Header{"Content-Type": {"text/html"}}})
	host := reg.Start(t)
	err := open(t, quick(), host+"/a/b", registry.Push).Upload(t.Context(), blobOf(data))
	wantError(t, err, host,
		"upload HOST/a/b@"+digest.FromBytes(data).String()+": POST http://HOST/v2/a/b/blobs/uploads/: 503 Service Unavailable",
		"The registry has a problem of its own: try again later.")
	if n := reg.Count("POST", "/uploads/"); n > 16 {
		t.Errorf("%d tries", n)
	}
}

func TestCutDownloadResumes(t *testing.T) {
	t.Parallel()
	data := noise(1_000_000)
	for name, c := range map[string]struct {
		fault  registrytest.Fault
		ranges []string
	}{
		"cut":           {registrytest.Fault{CutAfter: 300_000, Times: 2}, []string{"", "bytes=300000-999999", "bytes=600000-999999"}},
		"stall":         {registrytest.Fault{StallAfter: 300_000, Times: 1}, []string{"", "bytes=300000-999999"}},
		"range ignored": {registrytest.Fault{CutAfter: 300_000, Times: 2, IgnoreRange: true}, []string{"", "bytes=300000-999999"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			mustUpload(t, host, "a/b", data)
			c.fault.Method, c.fault.Path = "GET", "/blobs/"
			reg.Inject(c.fault)
			o := quick()
			o.IdleTimeout = time.Second // long enough for a busy machine
			got, err := read(t, open(t, o, host+"/a/b", registry.Pull), descriptorOf(data))
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("read %d bytes, %v", len(got), err)
			}
			var ranges []string
			for _, q := range reg.Requests() {
				if q.Method == "GET" && strings.Contains(q.Path, "/blobs/") {
					ranges = append(ranges, q.Range)
				}
			}
			if diff := cmp.Diff(c.ranges, ranges[:min(len(c.ranges), len(ranges))]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostileDownloads(t *testing.T) {
	t.Parallel()
	data := noise(100_000)
	d := digest.FromBytes(data).String()
	for name, c := range map[string]struct {
		fault registrytest.Fault
		want  string
	}{
		"other content":  {registrytest.Fault{Corrupt: true}, "the registry sent content with another digest"},
		"too short":      {registrytest.Fault{Rewrite: func(b []byte) []byte { return b[1:] }}, "the registry sends 99999 bytes instead of 100000"},
		"too long":       {registrytest.Fault{Rewrite: func(b []byte) []byte { return append(b, 'x') }}, "the registry sends 100001 bytes instead of 100000"},
		"endless":        {registrytest.Fault{Endless: true}, "the registry sent content with another digest"},
		"always cut":     {registrytest.Fault{CutAfter: 1}, "the connection is cut again and again, last after 6 of 100000 bytes: unexpected EOF"},
		"redirect loop":  {registrytest.Fault{Status: 307, Header: http.Header{"Location": {"/v2/a/b/blobs/" + d}}}, "Get /v2/a/b/blobs/" + d + ": the registry redirects more than 10 times"},
		"redirect local": {registrytest.Fault{Status: 307, Header: http.Header{"Location": {"file:///etc/passwd"}}}, "Get file:///etc/passwd: the registry redirects to a \"file\" address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			mustUpload(t, host, "a/b", data)
			c.fault.Method, c.fault.Path = "GET", "/blobs/"
			reg.Inject(c.fault)
			_, err := read(t, open(t, quick(), host+"/a/b", registry.Pull), descriptorOf(data))
			var e *diag.Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			if diff := cmp.Diff("fetch HOST/a/b@"+d+": "+c.want, strings.ReplaceAll(e.Error(), host, "HOST")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostileManifests(t *testing.T) {
	t.Parallel()
	other := digest.FromString("other").String()
	for name, c := range map[string]struct {
		fault registrytest.Fault
		id    string
		want  string
	}{
		"endless":      {registrytest.Fault{Path: "/manifests/", Endless: true}, "v1", "read the manifest: the registry's answer is too large"},
		"all endless":  {registrytest.Fault{Endless: true}, "v1", "read the manifest: the registry's answer is too large"},
		"huge":         {registrytest.Fault{Path: "/manifests/", Status: 200, Body: strings.Repeat(" ", 5<<20)}, "v1", "read the manifest: the registry's answer is too large"},
		"other digest": {registrytest.Fault{Path: "/manifests/", Status: 200, Body: "{}"}, other, "the registry sent a manifest with digest " + digest.FromString("{}").String() + " instead"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			reg.Inject(c.fault)
			_, err := open(t, quick(), host+"/a/b", registry.Pull).Manifest(t.Context(), c.id)
			var e *diag.Error
			if !errors.As(err, &e) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, e.Cause.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMount(t *testing.T) {
	t.Parallel()
	data := noise(1000)
	for name, c := range map[string]struct {
		auth    registrytest.Auth
		noMount bool
		want    bool
	}{
		"open":      {want: true},
		"basic":     {auth: registrytest.Auth{Users: map[string]string{"u": "p"}}, want: true},
		"bearer":    {auth: registrytest.Auth{Users: map[string]string{"u": "p"}, Bearer: true}, want: true},
		"not today": {noMount: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.Auth, reg.NoMount = c.auth, c.noMount
			host := reg.Start(t)
			o := quick()
			o.DockerConfigDirs = []string{configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"u","password":"p"}}}`, host))}
			if err := open(t, o, host+"/a/b", registry.Push).Upload(t.Context(), blobOf(data)); err != nil {
				t.Fatal(err)
			}
			from, err := name0(host + "/a/b")
			if err != nil {
				t.Fatal(err)
			}
			to := open(t, o, host+"/c", registry.Push)
			got, err := to.Mount(t.Context(), digest.FromBytes(data), from)
			if err != nil || got != c.want {
				t.Fatalf("mounted: %v, %v", got, err)
			}
			if has, err := to.Has(t.Context(), digest.FromBytes(data)); err != nil || has != c.want {
				t.Errorf("has it: %v, %v", has, err)
			}
		})
	}
}

func name0(s string) (name.Repository, error) { return name.NewRepository(s, name.WeakValidation) }

func TestCheckPush(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	if err := open(t, quick(), host+"/a/b", registry.Push).CheckPush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := reg.Count("DELETE", "/uploads/"); got != 1 {
		t.Errorf("%d uploads cancelled", got)
	}
	reg.Inject(registrytest.Fault{Method: "POST", Status: 404, Body: `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'a/b' does not exist"}]}`})
	err := open(t, quick(), host+"/a/b", registry.Push).CheckPush(t.Context())
	wantError(t, err, host,
		"check that HOST/a/b can be pushed to: POST http://HOST/v2/a/b/blobs/uploads/: 404 Not Found: NAME_UNKNOWN: The repository with name 'a/b' does not exist",
		"The repository HOST/a/b does not exist: create it first, or correct the name.")
}

func TestTransfersAreBounded(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	data := noise(10)
	mustUpload(t, host, "a/b", data)
	o := quick()
	o.Transfers = 1
	r := open(t, o, host+"/a/b", registry.Pull)
	first, err := r.Blob(t.Context(), descriptorOf(data))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := r.Blob(ctx, descriptorOf(data)); !errors.Is(err, stopped) {
		t.Errorf("second download: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := read(t, r, descriptorOf(data)); err != nil {
		t.Error(err)
	}
}

func configDir(t *testing.T, json string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(json), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
