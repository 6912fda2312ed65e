package output_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// must returns v, or ends the test.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// made is an image with random layers.
func made(t *testing.T, arch string) (output.Image, v1.Image) {
	t.Helper()
	img := must[v1.Image](t)(random.Image(3000, 3))
	img = mutate.ConfigMediaType(mutate.MediaType(img, types.OCIManifestSchema1), types.OCIConfigJSON)
	file := must[*v1.ConfigFile](t)(img.ConfigFile()).DeepCopy()
	file.OS, file.Architecture = "linux", arch
	img = must[v1.Image](t)(mutate.ConfigFile(img, file))
	raw := must[[]byte](t)(img.RawManifest())
	config := must[[]byte](t)(img.RawConfigFile())
	m := must[*v1.Manifest](t)(img.Manifest())
	out := output.Image{
		Manifest:     ocispec.Descriptor{MediaType: string(m.MediaType), Digest: digest.FromBytes(raw), Size: int64(len(raw)), Platform: &ocispec.Platform{OS: "linux", Architecture: arch}},
		ManifestData: raw,
		Config:       descriptor(m.Config),
		ConfigData:   config,
	}
	layers := must[[]v1.Layer](t)(img.Layers())
	for i, l := range layers {
		out.Layers = append(out.Layers, output.Layer{
			Descriptor: descriptor(m.Layers[i]),
			Open:       func(context.Context) (io.ReadCloser, error) { return l.Compressed() },
		})
	}
	return out, img
}

func descriptor(d v1.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size}
}

func result(t *testing.T) (*output.Result, v1.Image) {
	t.Helper()
	im, img := made(t, "amd64")
	return &output.Result{Images: []output.Image{im}}, img
}

func open(t *testing.T, o output.Options) *output.Output {
	t.Helper()
	c := must[*registry.Client](t)(registry.New(registry.Options{RetryDelay: time.Millisecond}))
	o.RetryDelay = time.Millisecond
	out := must[*output.Output](t)(output.New(c, o, nil))
	t.Cleanup(out.Close)
	return out
}

func write(t *testing.T, o output.Options, r *output.Result) {
	t.Helper()
	if err := open(t, o).Write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// pulled is the image under ref, fully checked.
func pulled(t *testing.T, ref string) v1.Hash {
	t.Helper()
	img := must[v1.Image](t)(remote.Image(must[name.Reference](t)(name.ParseReference(ref))))
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	return must[v1.Hash](t)(img.Digest())
}

func TestPush(t *testing.T) {
	t.Parallel()
	one, two := registrytest.New(), registrytest.New()
	host1, host2 := one.Start(t), two.Start(t)
	r, img := result(t)
	want := must[v1.Hash](t)(img.Digest())
	refs := []string{host1 + "/a/b:1", host1 + "/a/b:2", host1 + "/c", host2 + "/a/b:1", host1 + "/a/b:1"}
	write(t, output.Options{Destinations: refs}, r)
	for _, ref := range refs {
		if got := pulled(t, ref); got != want {
			t.Errorf("%s: %s", ref, got)
		}
	}
	// Four blobs for host1/a/b; those of host1/c are mounted.
	if got := one.Count("PATCH", ""); got != 4 {
		t.Errorf("%d uploads to the first registry", got)
	}
	if got := two.Count("PATCH", ""); got != 4 {
		t.Errorf("%d uploads to the second registry", got)
	}
	if got := one.Count("PUT", "/manifests/"); got != 3 {
		t.Errorf("%d manifests put into the first registry", got)
	}
	write(t, output.Options{Destinations: []string{host1 + "/a/b:3"}}, r)
	if got := one.Count("PATCH", ""); got != 4 {
		t.Errorf("%d uploads after a second push", got)
	}
}

func TestPushMountsFromBase(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r, img := result(t)
	if err := remote.Write(must[name.Reference](t)(name.ParseReference(host+"/base")), img); err != nil {
		t.Fatal(err)
	}
	before := reg.Count("PATCH", "")
	for i := range r.Images[0].Layers {
		r.Images[0].Layers[i].From = []string{"index.docker.io/library/debian", host + "/base"}
		r.Images[0].Layers[i].Open = func(context.Context) (io.ReadCloser, error) {
			return nil, errors.New("nobody should read this")
		}
	}
	write(t, output.Options{Destinations: []string{host + "/new:1"}}, r)
	if got := reg.Count("PATCH", "") - before; got != 1 { // the config
		t.Errorf("%d uploads", got)
	}
	pulled(t, host+"/new:1")
}

func TestPushIndex(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r := twoPlatforms(t)
	dir := filepath.Join(t.TempDir(), "layout")
	write(t, output.Options{Destinations: []string{host + "/a:1"}, OCILayoutPath: dir}, r)
	idx := must[v1.ImageIndex](t)(remote.Index(must[name.Reference](t)(name.ParseReference(host + "/a:1"))))
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	if got := must[v1.Hash](t)(idx.Digest()).String(); got != r.Digest().String() {
		t.Errorf("digest %s", got)
	}
	local := must[v1.ImageIndex](t)(layout.ImageIndexFromPath(dir))
	if err := validate.Index(local); err != nil {
		t.Error(err)
	}
	err := open(t, output.Options{TarPath: filepath.Join(t.TempDir(), "x.tar")}).Write(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "a docker archive holds one image") {
		t.Errorf("archive: %v", err)
	}
}

func twoPlatforms(t *testing.T) *output.Result {
	t.Helper()
	a, _ := made(t, "amd64")
	b, _ := made(t, "arm64")
	data := must[[]byte](t)(json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{a.Manifest, b.Manifest},
	}))
	return &output.Result{
		Images:    []output.Image{a, b},
		Index:     ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))},
		IndexData: data,
	}
}

// TestNothingHalfPushed lets one of several destinations fail: no tag may appear anywhere.
func TestNothingHalfPushed(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]registrytest.Fault{
		"denied":     {Method: "POST", Path: "/bad/", Status: 403},
		"broken":     {Method: "PATCH", Path: "/bad/", Status: 500},
		"refused":    {Method: "PUT", Path: "/bad/x/blobs/", Status: 400},
		"unknown":    {Method: "HEAD", Path: "/bad/", Status: 500},
		"early":      {Path: "/v2/", Status: 404},
		"cut upload": {Method: "PATCH", Path: "/bad/", Reset: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			good, bad := registrytest.New(), registrytest.New()
			hostGood, hostBad := good.Start(t), bad.Start(t)
			bad.Inject(f)
			r, _ := result(t)
			err := open(t, output.Options{Destinations: []string{hostGood + "/good/x:1", hostBad + "/bad/x:1"}}).Write(t.Context(), r)
			if !errors.As(err, new(*diag.Error)) {
				t.Fatalf("error %v", err)
			}
			if n := good.Count("PUT", "/manifests/") + bad.Count("PUT", "/manifests/"); n != 0 {
				t.Errorf("%d manifests were put", n)
			}
		})
	}
}

func TestPushRetries(t *testing.T) {
	t.Parallel()
	for retries, ok := range map[int]bool{0: false, 2: true} {
		t.Run(fmt.Sprint(retries), func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			reg.Inject(registrytest.Fault{Method: "PUT", Path: "/manifests/", Status: 400, Times: 2})
			r, _ := result(t)
			err := open(t, output.Options{Destinations: []string{host + "/a:1"}, PushRetries: retries}).Write(t.Context(), r)
			if (err == nil) != ok {
				t.Error(err)
			}
		})
	}
}

// TestImmutableTags holds that a registry that lets no tag change is no failure if the user says so, and what that is.
func TestImmutableTags(t *testing.T) {
	t.Parallel()
	answer := func(code, message string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	for name, c := range map[string]struct {
		status int
		body   string
		fails  bool
	}{
		"Artifact Registry": {400, answer("MANIFEST_INVALID", "cannot update tag 1. The repository has enabled tag immutability"), false},
		"ECR":               {400, answer("TAG_INVALID", "The image tag '1' already exists in the 'a' repository and cannot be overwritten because the tag is immutable."), false},
		"ECR before":        {400, answer("TAG_INVALID", "The image tag '1' already exists in the 'a' repository and cannot be overwritten because the repository is immutable."), false},
		"Harbor":            {412, answer("PRECONDITION", "Failed to process request due to 'a:1' configured as immutable."), false},
		"a code":            {409, answer("IMAGE_TAG_ALREADY_EXISTS", ""), false},
		"a bad tag":         {400, answer("TAG_INVALID", "manifest tag did not match URI"), true},
		"denied":            {403, answer("DENIED", "requested access to the resource is denied"), true},
		"down":              {500, answer("UNKNOWN", "the store is immutable just now"), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, ignore := range []bool{false, true} {
				reg := registrytest.New()
				host := reg.Start(t)
				reg.Inject(registrytest.Fault{Method: "PUT", Path: "/a/manifests/1", Status: c.status, Body: c.body})
				r, _ := result(t)
				o := open(t, output.Options{Destinations: []string{host + "/a:1", host + "/b:1"}, IgnoreImmutableTags: ignore})
				err := o.Write(t.Context(), r)
				if want := c.fails || !ignore; (err != nil) != want {
					t.Errorf("ignored: %t: error %v", ignore, err)
				}
				if got := [2]bool{o.Kept(host + "/a:1"), o.Kept(host + "/b:1")}; got != [2]bool{ignore && !c.fails, false} {
					t.Errorf("ignored: %t: kept: %v", ignore, got)
				}
			}
		})
	}
}

func TestUploadAhead(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r, _ := result(t)
	var mu sync.Mutex
	opened := map[digest.Digest]int{}
	for i, l := range r.Images[0].Layers {
		r.Images[0].Layers[i].Open = func(ctx context.Context) (io.ReadCloser, error) {
			mu.Lock()
			defer mu.Unlock()
			opened[l.Digest]++
			return l.Open(ctx)
		}
	}
	out := open(t, output.Options{Destinations: []string{host + "/a:1", host + "/b:1"}})
	want := map[digest.Digest]int{}
	for _, l := range r.Images[0].Layers {
		out.Upload(l)
		out.Upload(l)
		want[l.Digest] = 1
	}
	if err := out.Write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	out.Close()
	if diff := cmp.Diff(want, opened); diff != "" {
		t.Errorf("layers read (-want +got):\n%s", diff)
	}
	pulled(t, host+"/a:1")
	pulled(t, host+"/b:1")
}

func TestFailedUploadAheadIsTriedAgain(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r, _ := result(t)
	reg.Inject(registrytest.Fault{Method: "POST", Status: 400, Times: 1})
	out := open(t, output.Options{Destinations: []string{host + "/a:1"}})
	out.Upload(r.Images[0].Layers[0])
	if err := reg.Wait(t.Context(), "POST", ""); err != nil {
		t.Fatal(err)
	}
	if err := out.Write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	pulled(t, host+"/a:1")
}

func TestCloseEndsUploads(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	reg.Inject(registrytest.Fault{Method: "PATCH", Hang: true})
	r, _ := result(t)
	out := open(t, output.Options{Destinations: []string{host + "/a:1"}})
	out.Upload(r.Images[0].Layers[0])
	if err := reg.Wait(t.Context(), "PATCH", ""); err != nil { // it hangs
		t.Fatal(err)
	}
	out.Close()
}

func TestCheck(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Users: map[string]string{"u": "p"}}
	host := reg.Start(t)
	o := output.Options{Destinations: []string{host + "/a/b:1", host + "/a/b:2"}}
	err := open(t, o).Check(t.Context())
	var d *diag.Error
	if !errors.As(err, &d) {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(d.Error()+"\n"+d.Hint, host, "HOST")
	want := "check that HOST/a/b can be pushed to: POST http://HOST/v2/a/b/blobs/uploads/: 401 Unauthorized: UNAUTHORIZED: authentication required\n" +
		`No credentials for HOST were found: add them as auths["HOST"] to a docker config.json, or correct the name.`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, skip := range []func(*output.Options){
		func(o *output.Options) { o.SkipPushPermissionCheck = true },
		func(o *output.Options) { o.NoPush = true },
	} {
		o := o
		skip(&o)
		if err := open(t, o).Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestLayout(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "layout")
	old, _ := result(t)
	write(t, output.Options{OCILayoutPath: dir}, old)
	r, img := result(t)
	write(t, output.Options{OCILayoutPath: dir, NoPush: true, Destinations: []string{"ghcr.io/a/b:1.2"}}, r)

	idx := must[v1.ImageIndex](t)(layout.ImageIndexFromPath(dir))
	m := must[*v1.IndexManifest](t)(idx.IndexManifest())
	want := []v1.Descriptor{*must[*v1.Descriptor](t)(partial.Descriptor(img))}
	want[0].ArtifactType = "" // what go-containerregistry adds for the referrers API
	want[0].Annotations = map[string]string{"org.opencontainers.image.ref.name": "1.2"}
	want[0].Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	if diff := cmp.Diff(want, m.Manifests); diff != "" {
		t.Error(diff)
	}
	got := must[v1.Image](t)(idx.Image(want[0].Digest))
	if err := validate.Image(got); err != nil {
		t.Error(err)
	}
	if leftovers := must[[]string](t)(filepath.Glob(filepath.Join(dir, "blobs", "sha256", ".*"))); len(leftovers) > 0 {
		t.Error(leftovers)
	}
	skopeo(t, "oci:"+dir+":1.2", r.Digest())
}

// skopeo asks another tool what it thinks of an image, where there is one.
func skopeo(t *testing.T, ref string, want digest.Digest) {
	t.Helper()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Log("skopeo is not installed: not asked")
		return
	}
	if got := askSkopeo(t, "--override-os=linux", "--format={{.Digest}}", ref); want != "" && got != want.String() {
		t.Errorf("skopeo inspect %s: digest %s", ref, got)
	}
}

func TestDamagedBlobInLayoutIsReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, _ := result(t)
	write(t, output.Options{OCILayoutPath: dir}, r)
	victim := filepath.Join(dir, "blobs", "sha256", r.Images[0].Layers[0].Digest.Encoded())
	if err := os.WriteFile(victim, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, output.Options{OCILayoutPath: dir}, r)
	idx := must[v1.ImageIndex](t)(layout.ImageIndexFromPath(dir))
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
}

func TestArchive(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		destinations []string
		tags         []string
	}{
		"no name":   {nil, []string{"docker.io/unset-repo/unset-image-name:latest"}},
		"two names": {[]string{"a/b", "localhost:5000/c:2"}, []string{"a/b:latest", "localhost:5000/c:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, img := result(t)
			// The same layer twice is in the archive once.
			path := filepath.Join(t.TempDir(), "x.tar")
			write(t, output.Options{TarPath: path, NoPush: true, Destinations: c.destinations}, r)
			m := must[tarball.Manifest](t)(tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) }))
			if diff := cmp.Diff(c.tags, m[0].RepoTags); diff != "" {
				t.Error(diff)
			}
			got := must[v1.Image](t)(tarball.ImageFromPath(path, nil))
			if err := validate.Image(got); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(must[v1.Hash](t)(img.ConfigName()), must[v1.Hash](t)(got.ConfigName())); diff != "" {
				t.Error(diff)
			}
			skopeo(t, "docker-archive:"+path, "")
		})
	}
}

func TestArchiveKeepsOldFileOnError(t *testing.T) {
	t.Parallel()
	r, _ := result(t)
	r.Images[0].Layers[1].Open = func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("something else")), nil
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "x.tar")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := open(t, output.Options{TarPath: path}).Write(t.Context(), r)
	if err == nil || !strings.Contains(err.Error(), "the content has another digest or size") {
		t.Errorf("error %v", err)
	}
	if got := must[[]byte](t)(os.ReadFile(path)); string(got) != "old" {
		t.Errorf("content %q", got)
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(dir)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

func TestArchiveToPipe(t *testing.T) {
	t.Parallel()
	r, _ := result(t)
	read, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wr.Close()
	defer read.Close()
	names := make(chan []string)
	go func() {
		var out []string
		tr := tar.NewReader(read)
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			out = append(out, h.Name)
		}
		names <- out
		_, _ = io.Copy(io.Discard, read) // the end of the archive
	}()
	write(t, output.Options{TarPath: fmt.Sprintf("/proc/self/fd/%d", wr.Fd())}, r)
	want := []string{r.Images[0].Config.Digest.String()}
	for _, l := range r.Images[0].Layers {
		want = append(want, l.Digest.Encoded()+".tar.gz")
	}
	if diff := cmp.Diff(append(want, "manifest.json"), <-names); diff != "" {
		t.Error(diff)
	}
}

func TestDigestFiles(t *testing.T) {
	t.Parallel()
	r, _ := result(t)
	dir := t.TempDir()
	o := output.Options{
		Destinations:          []string{"a/b", "ghcr.io/c/d:1"},
		NoPush:                true,
		DigestFile:            filepath.Join(dir, "new", "digest"),
		NameWithDigestFile:    filepath.Join(dir, "names"),
		NameTagWithDigestFile: filepath.Join(dir, "tags"),
	}
	if err := os.WriteFile(o.NameWithDigestFile, bytes.Repeat([]byte("old"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	both := o
	o.NameTagWithDigestFile = ""
	write(t, o, r)
	d := r.Digest().String()
	want := "index.docker.io/a/b@" + d + "\nghcr.io/c/d@" + d + "\n"
	if diff := cmp.Diff(want, string(must[[]byte](t)(os.ReadFile(o.NameWithDigestFile)))); diff != "" {
		t.Error(diff)
	}
	both.NameWithDigestFile = filepath.Join(dir, "like tags") // kaniko writes one text to both
	write(t, both, r)
	for path, want := range map[string]string{
		o.DigestFile:               d,
		both.NameWithDigestFile:    "index.docker.io/a/b:latest@" + d + "\nghcr.io/c/d:1@" + d + "\n",
		both.NameTagWithDigestFile: "index.docker.io/a/b:latest@" + d + "\nghcr.io/c/d:1@" + d + "\n",
	} {
		if diff := cmp.Diff(want, string(must[[]byte](t)(os.ReadFile(path)))); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	if st := must[os.FileInfo](t)(os.Stat(filepath.Dir(o.DigestFile))); st.Mode().Perm() != 0o700 {
		t.Errorf("mode of the new directory: %v", st.Mode())
	}
}

func TestDigestToDevice(t *testing.T) {
	t.Parallel()
	r, _ := result(t)
	write(t, output.Options{DigestFile: "/dev/null"}, r)
	if st := must[os.FileInfo](t)(os.Lstat("/dev/null")); st.Mode()&os.ModeCharDevice == 0 {
		t.Error("/dev/null was replaced")
	}
}

func TestBuilderOutput(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r, _ := result(t)
	dir := t.TempDir()
	write(t, output.Options{Destinations: []string{host + "/a:1"}, BuilderOutputDir: dir}, r)
	want := fmt.Sprintf("{\"name\":%q,\"digest\":%q}\n", host+"/a:1", r.Digest())
	if diff := cmp.Diff(want, string(must[[]byte](t)(os.ReadFile(filepath.Join(dir, "images"))))); diff != "" {
		t.Error(diff)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		options output.Options
		want    string
	}{
		{output.Options{Destinations: []string{"https://u:secret@ghcr.io/a"}}, `image reference "https://…" is not valid`},
		{output.Options{NameWithDigestFile: "x"}, "write the image's name and digest to a file: there is no destination"},
	} {
		_, err := output.New(nil, c.options, nil)
		if err == nil || err.Error() != c.want {
			t.Errorf("got  %v\nwant %s", err, c.want)
		}
	}
}
