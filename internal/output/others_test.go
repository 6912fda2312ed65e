package output_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"hako/internal/image/imagetest"
	"hako/internal/output"
	"hako/internal/registry/registrytest"
)

// askSkopeo runs skopeo inspect.
func askSkopeo(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "skopeo", append([]string{"inspect"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo inspect %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestOthersReadAnIndex lets skopeo, and what "crane validate" runs, read an index in a registry, in a layout and in a tar.
func TestOthersReadAnIndex(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("needs skopeo")
	}
	host := registrytest.New().Start(t)
	r := twoPlatforms(t)
	dir, tar := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "x.tar")
	write(t, output.Options{
		Destinations: []string{host + "/a:1"}, OCILayoutPath: dir, Exports: []output.Export{{Kind: output.OCI, Dest: tar}},
	}, r)
	if err := imagetest.CheckLayout(dir); err != nil {
		t.Error(err)
	}
	idx := must[v1.ImageIndex](t)(remote.Index(must[name.Reference](t)(name.ParseReference(host + "/a:1"))))
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	for _, ref := range []string{"docker://" + host + "/a:1", "oci:" + dir + ":1", "oci-archive:" + tar + ":1"} {
		if raw := askSkopeo(t, "--tls-verify=false", "--raw", ref); raw != strings.TrimSpace(string(r.IndexData)) {
			t.Errorf("%s: %s", ref, raw)
		}
		var got struct{ Architecture, Os string }
		text := askSkopeo(t, "--tls-verify=false", "--override-os=linux", "--override-arch=arm64", ref)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.Architecture != "arm64" || got.Os != "linux" {
			t.Errorf("%s: %v %s", ref, err, text)
		}
	}
}

// TestNoTagWithoutAllOfAnIndex lets the manifest of one platform fail in one of two registries.
func TestNoTagWithoutAllOfAnIndex(t *testing.T) {
	t.Parallel()
	good, bad := registrytest.New(), registrytest.New()
	hostGood, hostBad := good.Start(t), bad.Start(t)
	r := twoPlatforms(t)
	bad.Inject(registrytest.Fault{Method: "PUT", Path: "/manifests/" + r.Images[1].Manifest.Digest.String(), Status: 403})
	meta, id := filepath.Join(t.TempDir(), "meta"), filepath.Join(t.TempDir(), "id")
	o := output.Options{Destinations: []string{hostGood + "/a:1", hostBad + "/a:1"}, MetadataFile: meta, IIDFile: id}
	if err := open(t, o).Write(t.Context(), r); err == nil {
		t.Fatal("the push succeeded")
	}
	if n := good.Count("PUT", "/manifests/1") + bad.Count("PUT", "/manifests/1"); n != 0 {
		t.Errorf("%d tags were put", n)
	}
	for _, f := range []string{meta, id} {
		if _, err := os.Stat(f); err == nil {
			t.Errorf("%s tells of success", f)
		}
	}
}

func TestPushByDigest(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	host := reg.Start(t)
	r := twoPlatforms(t)
	names, meta := filepath.Join(t.TempDir(), "names"), filepath.Join(t.TempDir(), "meta")
	write(t, output.Options{Repositories: []string{host + "/a"}, NameWithDigestFile: names, MetadataFile: meta}, r)
	want := host + "/a@" + r.Digest().String()
	idx := must[v1.ImageIndex](t)(remote.Index(must[name.Reference](t)(name.ParseReference(want))))
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	if got := string(must[[]byte](t)(os.ReadFile(names))); got != want+"\n" {
		t.Errorf("names: %q", got)
	}
	var got map[string]any
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(meta)), &got); err != nil {
		t.Fatal(err)
	}
	if got["containerimage.digest"] != r.Digest().String() || got["image.name"] != host+"/a" || got["containerimage.config.digest"] != nil {
		t.Errorf("metadata: %v", got)
	}
	if n := reg.Count("PUT", "/manifests/latest"); n != 0 {
		t.Error("a tag was put")
	}
}
