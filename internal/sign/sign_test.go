package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const image = digest.Digest("sha256:8302cc59cb746ad0f71cb50a5bfa632170bf1416fbd5604d87f1da91fcd561e2")

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func cosignsKey(t testing.TB) *Key {
	t.Helper()
	k, err := ParseKey(testdata(t, "cosign.key"), []byte("pw"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// seal makes a key file as cosign does, but quickly.
func seal(t testing.TB, private any, password string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	var s sealedKey
	s.KDF.Name, s.Cipher.Name = "scrypt", "nacl/secretbox"
	s.KDF.Params.N, s.KDF.Params.R, s.KDF.Params.P = 1024, 8, 1
	s.KDF.Salt, s.Cipher.Nonce = []byte("salt"), bytes.Repeat([]byte{7}, 24)
	derived, err := scrypt.Key([]byte(password), s.KDF.Salt, 1024, 8, 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	s.Ciphertext = secretbox.Seal(nil, der, (*[24]byte)(s.Cipher.Nonce), (*[32]byte)(derived))
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: sigstoreKey, Bytes: text})
}

// verify checks a bundle by the standard library alone, and returns the statement in it.
func verify(t *testing.T, public, data []byte) []byte {
	t.Helper()
	block, _ := pem.Decode(public)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	var b bundle
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	message, sig := preAuthentication(b.Envelope.Payload), b.Envelope.Signatures[0].Sig
	sum := sha256.Sum256(message)
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, sum[:], sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, message, sig)
	case *rsa.PublicKey:
		ok = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil
	}
	if !ok {
		t.Error("the signature is wrong")
	}
	return b.Envelope.Payload
}

func TestCosignsKey(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(string(testdata(t, "cosign.pub")), string(cosignsKey(t).PublicKey())); diff != "" {
		t.Error(diff)
	}
}

// TestAsCosign signs what cosign signed. Only the signature differs, because cosign's has randomness in it; ours is the same each time.
func TestAsCosign(t *testing.T) {
	t.Parallel()
	theirs := testdata(t, "cosign-bundle.json")
	statement := verify(t, testdata(t, "cosign.pub"), theirs)
	if diff := cmp.Diff(string(statement), string(Statement(image))); diff != "" {
		t.Error(diff)
	}
	ours, err := cosignsKey(t).Bundle(Statement(image))
	if err != nil {
		t.Fatal(err)
	}
	verify(t, testdata(t, "cosign.pub"), ours)
	cut := func(b []byte) string {
		before, _, _ := strings.Cut(string(b), `"sig":`)
		return before
	}
	if diff := cmp.Diff(cut(theirs), cut(ours)); diff != "" {
		t.Error(diff)
	}
	if *update {
		if err := os.WriteFile("testdata/bundle.json", ours, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(testdata(t, "bundle.json")), string(ours)); diff != "" {
		t.Error(diff)
	}
}

// TestArtifactAsCosign compares with the manifest that cosign stored; it says the artifact type in the configuration's descriptor as
// well, where no specification has it.
func TestArtifactAsCosign(t *testing.T) {
	t.Parallel()
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: image, Size: 855}
	created, err := time.Parse(time.RFC3339, "2026-11-23T18:31:02Z")
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewArtifact(subject, SignatureType, testdata(t, "cosign-bundle.json"), created)
	if err != nil {
		t.Fatal(err)
	}
	var want, got ocispec.Manifest
	for data, m := range map[string]*ocispec.Manifest{string(testdata(t, "cosign-manifest.json")): &want, string(a.Data): &got} {
		if err := json.Unmarshal([]byte(data), m); err != nil {
			t.Fatal(err)
		}
	}
	want.Config.ArtifactType, got.Config.Data = "", nil
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if a.Descriptor.ArtifactType != want.ArtifactType || a.Descriptor.Digest != digest.FromBytes(a.Data) {
		t.Errorf("descriptor %+v", a.Descriptor)
	}
}

func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, private := range map[string]any{"P-256": p256, "P-384": p384, "Ed25519": ed, "RSA": rsaKey} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, err := ParseKey(seal(t, private, ""), nil)
			if err != nil {
				t.Fatal(err)
			}
			one, err := k.Bundle(Statement(image))
			if err != nil {
				t.Fatal(err)
			}
			verify(t, k.PublicKey(), one)
			two, err := k.Bundle(Statement(image))
			if err != nil || !bytes.Equal(one, two) {
				t.Errorf("the second signature differs: %v", err)
			}
			byOpenSSL(t, k, one)
			signsMessages(t, k)
		})
	}
}

// byOpenSSL has another program check a bundle.
func byOpenSSL(t *testing.T, k *Key, data []byte) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	var b bundle
	if err := json.Unmarshal(data, &b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	public, sig := file("key.pub", k.PublicKey()), file("sig", b.Envelope.Signatures[0].Sig)
	message := file("message", []byte("DSSEv1 28 application/vnd.in-toto+json "+itoa(len(b.Envelope.Payload))+" "+string(b.Envelope.Payload)))
	args := []string{"dgst", "-sha256", "-verify", public, "-signature", sig, message}
	if k.hash == 0 {
		args = []string{"pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-sigfile", sig, "-in", message}
	}
	if out, err := exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput(); err != nil {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

func itoa(n int) string { return string(mustJSON(n)) }

func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// signsMessages checks that what k signs is verified with its public key, and nothing else is.
func signsMessages(t *testing.T, k *Key) {
	t.Helper()
	public, err := ParsePublicKey(k.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	sig, err := k.Sign([]byte("message"))
	if err != nil || !public.Verify([]byte("message"), sig) || !k.Public().Verify([]byte("message"), sig) {
		t.Errorf("its own signature: %v", err)
	}
	if public.Verify([]byte("messagE"), sig) || public.Verify([]byte("message"), nil) || public.Verify([]byte("message"), sig[1:]) || cosignsKey(t).Public().Verify([]byte("message"), sig) {
		t.Error("a foreign signature was believed")
	}
}

func TestBadPublicKeys(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", string(testdata(t, "cosign.key"))} {
		if _, err := ParsePublicKey([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestBadKeys(t *testing.T) {
	t.Parallel()
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := seal(t, ed, "secret")
	change := func(old, new string) []byte {
		block, _ := pem.Decode(good)
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: bytes.Replace(block.Bytes, []byte(old), []byte(new), 1)})
	}
	plain, err := x509.MarshalPKCS8PrivateKey(ed)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"wrong password": {good, "the password is wrong"},
		"damaged":        {change(`"ciphertext":"`, `"ciphertext":"AAAA`), "the password is wrong"},
		"no PEM":         {[]byte("hello"), "not in PEM form"},
		"public key":     {cosignsKey(t).PublicKey(), "is a public key"},
		"plain key":      {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: plain}), "which cosign does not take either"},
		"no JSON":        {pem.EncodeToMemory(&pem.Block{Type: sigstoreKey, Bytes: []byte("x")}), "not a key of cosign's"},
		"other cipher":   {change("nacl/secretbox", "rot13"), "not known here"},
		"other kdf":      {change(`"scrypt"`, `"pbkdf"`), "not known here"},
		"huge N":         {change(`"N":1024`, `"N":1073741824`), "senseless parameters"},
		"negative N":     {change(`"N":1024`, `"N":-1024`), "senseless parameters"},
		"odd N":          {change(`"N":1024`, `"N":1023`), "N must be"},
	} {
		_, err := ParseKey(c.text, []byte("wrong"))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// FuzzParseKey looks for panics.
func FuzzParseKey(f *testing.F) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seal(f, ed, "pw"))
	f.Add(testdata(f, "cosign.pub"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s sealedKey
		if block, _ := pem.Decode(text); block != nil && json.Unmarshal(block.Bytes, &s) == nil && s.KDF.Params.N*s.KDF.Params.R*s.KDF.Params.P > 1<<16 {
			t.Skip("too slow")
		}
		k, err := ParseKey(text, []byte("pw"))
		if err == nil {
			if _, err := k.Bundle(Statement(image)); err != nil {
				t.Error(err)
			}
		}
	})
}
