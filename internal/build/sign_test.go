package build_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/internal/attest"
	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
	"hako/internal/sandbox"
	"hako/internal/sign"
)

const signed = "FROM scratch\nCOPY lib.json /node_modules/lib/package.json\n"

// signedWorld has a request that signs with cosign's key.
func signedWorld(t *testing.T, referrers bool) (*world, build.Request) {
	t.Helper()
	w := newWorld(t, signed)
	if referrers {
		w.registry = registrytest.NewWithReferrers()
		w.host = w.registry.Start(t)
	}
	w.write(t, "lib.json", `{"name":"lib","version":"2.0.0"}`)
	req := w.request()
	key, err := filepath.Abs("../sign/testdata/cosign.key")
	if err != nil {
		t.Fatal(err)
	}
	req.Signing = build.Signing{KeyFile: key, Password: "pw"}
	return w, req
}

// bundles counts the bundles about a manifest, by the type of what they state. go-containerregistry asks the API or the tag.
func bundles(t *testing.T, ref name.Digest) map[string]int {
	t.Helper()
	index, err := remote.Referrers(ref)
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, d := range m.Manifests {
		im, err := remote.Image(ref.Context().Digest(d.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := im.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		if manifest.Subject.Digest.String() != ref.DigestStr() {
			t.Errorf("a bundle about %s is listed for %s", manifest.Subject.Digest, ref.DigestStr())
		}
		kind := statementIn(t, ref.Context(), manifest.Layers[0].Digest, ref.DigestStr())
		if kind != d.Annotations["dev.sigstore.bundle.predicateType"] {
			t.Errorf("%s is announced as %v", kind, d.Annotations)
		}
		out[kind]++
	}
	return out
}

// statementIn reads the bundle in a blob, and checks what it is about.
func statementIn(t *testing.T, repo name.Repository, blob v1.Hash, subject string) string {
	t.Helper()
	l, err := remote.Layer(repo.Digest(blob.String()))
	if err != nil {
		t.Fatal(err)
	}
	rc, err := l.Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var bundle struct {
		DSSEEnvelope struct{ Payload []byte }
	}
	if err := json.NewDecoder(rc).Decode(&bundle); err != nil {
		t.Fatal(err)
	}
	var s statement
	if err := json.Unmarshal(bundle.DSSEEnvelope.Payload, &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Subject) != 1 || "sha256:"+s.Subject[0].Digest["sha256"] != subject {
		t.Errorf("a statement about %v belongs to %s", s.Subject, subject)
	}
	return s.PredicateType
}

func (w *world) digest(t *testing.T, tag string) name.Digest {
	t.Helper()
	ref, err := name.ParseReference(w.host + "/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	d, err := remote.Head(ref)
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Digest(d.Digest.String())
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	for how, referrers := range map[string]bool{"by API": true, "by tag": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, req := signedWorld(t, referrers)
			for range 2 { // signing again adds nothing new for the same image
				if err := w.build(t.Context(), req, event.Discard{}); err != nil {
					t.Fatal(diag.Format(err))
				}
			}
			if got := bundles(t, w.digest(t, "out:1")); got[sign.SignatureType] == 0 || len(got) != 1 {
				t.Errorf("got %v", got)
			}
		})
	}
}

// TestSignaturesOfAnIndex has a signature of the index and of each image, and signed statements about both.
func TestSignaturesOfAnIndex(t *testing.T) {
	t.Parallel()
	w, req := signedWorld(t, false)
	req.Platforms = []string{"linux/amd64", "linux/arm64"}
	req.Attestations = build.Attestations{Provenance: attest.Min, SBOM: true}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	top := w.digest(t, "out:1")
	check := func(ref name.Digest, images int) {
		got := bundles(t, ref)
		if got[sign.SignatureType] != 1 || got[attest.ProvenanceType] != images || got["https://spdx.dev/Document"] != images {
			t.Errorf("%s: got %v", ref, got)
		}
	}
	check(top, 2)
	m, err := w.index(t, "out:1").IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests[:2] {
		check(top.Context().Digest(d.Digest.String()), 1)
	}
}

// TestNoTagWithoutSignatures fails to store a signature: the image must not get its tag.
func TestNoTagWithoutSignatures(t *testing.T) {
	t.Parallel()
	w, req := signedWorld(t, false)
	w.registry.Inject(registrytest.Fault{Method: http.MethodPut, Path: "/manifests/sha256-", Status: http.StatusForbidden})
	err := w.build(t.Context(), req, event.Discard{})
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v", err)
	}
	if w.pushed(t, "out:1") {
		t.Error("the tag exists")
	}
}

func TestSigningRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*build.Request){
		"the password is wrong":     func(r *build.Request) { r.Signing.Password = "other" },
		"read the signing key":      func(r *build.Request) { r.Signing.KeyFile = "nowhere.key" },
		"is not in PEM form":        func(r *build.Request) { r.Signing = build.Signing{KeyText: "hunter2"} },
		"that is not pushed":        func(r *build.Request) { r.Outputs.NoPush = true },
		"signatures are kept in re": func(r *build.Request) { r.Outputs = build.Outputs{NoPush: true, OCILayoutPath: "x"} },
	} {
		w, req := signedWorld(t, false)
		change(&req)
		err := w.build(t.Context(), req, event.Discard{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
			continue
		}
		if text := diag.Format(err); strings.Contains(text, "hunter2") || !strings.Contains(text, "\n") {
			t.Errorf("a secret, or no hint: %s", text)
		}
		if n := w.registry.Count(http.MethodPut, ""); n != 0 {
			t.Errorf("%s: %d requests wrote something", want, n)
		}
	}
}

// TestKeyIsReadBeforeTheBuild runs no step with a wrong password.
func TestKeyIsReadBeforeTheBuild(t *testing.T) {
	t.Parallel()
	w, req := signedWorld(t, false)
	w.write(t, "Dockerfile", "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\", \"exit\"]\n")
	req.Signing.Password = "other"
	err := w.build(t.Context(), req, event.Discard{})
	var exit *sandbox.ExitError
	if err == nil || strings.Contains(err.Error(), "exit") && !strings.Contains(err.Error(), "password") {
		t.Errorf("got %v (%v)", err, exit)
	}
}

// TestCosign has cosign itself verify what was signed, where it is installed.
func TestCosign(t *testing.T) {
	t.Parallel()
	cosign, err := exec.LookPath("cosign")
	if err != nil {
		t.Skip("needs cosign 3 (go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3)")
	}
	public, err := filepath.Abs("../sign/testdata/cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	run := func(ctx context.Context, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, cosign, append(args, "--key", public, "--insecure-ignore-tlog=true", "--allow-http-registry")...)
		cmd.Env = append(os.Environ(), "HOME="+home)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for how, referrers := range map[string]bool{"by API": true, "by tag": false} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, req := signedWorld(t, referrers)
			req.Platforms = []string{"linux/amd64", "linux/arm64"}
			req.Attestations = build.Attestations{Provenance: attest.Max, SBOM: true}
			if err := w.build(t.Context(), req, event.Discard{}); err != nil {
				t.Fatal(diag.Format(err))
			}
			m, err := w.index(t, "out:1").IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			for _, ref := range []string{w.host + "/out:1", w.host + "/out@" + m.Manifests[0].Digest.String(), w.host + "/out@" + m.Manifests[1].Digest.String()} {
				for _, args := range [][]string{
					{"verify", ref}, {"verify-attestation", "--type", "slsaprovenance1", ref}, {"verify-attestation", "--type", "spdxjson", ref},
				} {
					if out, err := run(t.Context(), args...); err != nil {
						t.Errorf("cosign %s: %v: %s", strings.Join(args, " "), err, out)
					}
				}
			}
			if _, err := run(t.Context(), "verify", w.host+"/out@"+m.Manifests[2].Digest.String()); err == nil {
				t.Error("cosign verified what nobody signed")
			}
		})
	}
}
