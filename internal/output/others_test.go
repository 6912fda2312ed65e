package output_test

import (
	"encoding/json"
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
