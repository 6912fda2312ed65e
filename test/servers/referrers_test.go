package servers

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/test/lab"
)

// TestReferrersByTag signs an image in a registry without the referrers API, as distribution is: the list of what belongs to
// the image is under a tag made of its digest.
func TestReferrersByTag(t *testing.T) {
	t.Parallel()
	r := start(t, lab.RegistryOptions{User: user, Password: password})
	pushBase(t, r.Addr+"/base:1", remotely(r)...)
	root := must[string](t)(lab.ModuleRoot())
	j := job{
		config: auths(r.Addr, user, password), env: []string{"COSIGN_PASSWORD=pw"},
		args: []string{contextOf(t, r.Addr+"/base:1"), "--destination=" + r.Addr + "/app:1", "--sign", "--sign-key=" + filepath.Join(root, "internal/sign/testdata/cosign.key")},
	}
	j.succeed(t)
	j.args[0] = contextOf(t, r.Addr+"/base:1")
	j.args[1] = "--destination=" + r.Addr + "/app:2"
	j.succeed(t)
	for _, tag := range []string{"1", "2"} {
		ref := r.Addr + "/app:" + tag
		whole(t, ref, 4, remotely(r)...)
		image := must[v1.Image](t)(remote.Image(must[name.Reference](t)(name.ParseReference(ref)), remotely(r)...))
		digest := must[v1.Hash](t)(image.Digest())
		list := r.Addr + "/app:" + strings.ReplaceAll(digest.String(), ":", "-")
		index := must[v1.ImageIndex](t)(remote.Index(must[name.Reference](t)(name.ParseReference(list)), remotely(r)...))
		m := must[*v1.IndexManifest](t)(index.IndexManifest())
		if len(m.Manifests) != 1 || m.Manifests[0].ArtifactType == "" {
			t.Errorf("%s lists %+v", list, m.Manifests)
			continue
		}
		signature := must[*remote.Descriptor](t)(remote.Get(must[name.Reference](t)(name.ParseReference(r.Addr+"/app@"+m.Manifests[0].Digest.String())), remotely(r)...))
		if !strings.Contains(string(signature.Manifest), `"subject"`) || !strings.Contains(string(signature.Manifest), digest.String()) {
			t.Errorf("the signature is not about %s: %s", digest, signature.Manifest)
		}
	}
}
