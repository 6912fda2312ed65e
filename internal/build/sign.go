package build

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/attest"
	"hako/internal/diag"
	"hako/internal/output"
	"hako/internal/sign"
)

// Signing says with which key the result is signed. The zero value is not at all.
type Signing struct {
	// KeyFile is the path of a private key of cosign's; or KeyText is its content.
	KeyFile, KeyText string
	// Password is that of the key; it may be empty.
	Password string
}

// String hides the secrets.
func (s Signing) String() string { return "key " + s.KeyFile }

// GoString hides the secrets.
func (s Signing) GoString() string { return s.String() }

// asked says whether anything is signed.
func (s *Signing) asked() bool { return s.KeyFile != "" || s.KeyText != "" }

// validateSigning refuses signatures that nobody could find.
func (r *Request) validateSigning() error {
	o := &r.Outputs
	if !r.Signing.asked() || r.DryRun || !o.NoPush && len(o.Destinations)+len(o.Repositories) > 0 {
		return nil
	}
	return &diag.Error{
		What: "sign an image that is not pushed: signatures are kept in registries",
		Hint: "Give a --destination, or sign with cosign when the image is in a registry.",
	}
}

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 1 << 20

// openKey reads the signing key, so that a wrong password is known before the build.
func (b *builder) openKey() error {
	s := &b.req.Signing
	if !s.asked() {
		return nil
	}
	text, err := b.keyText(s, "the signing key", "Make a key with: cosign generate-key-pair.")
	if err != nil {
		return err
	}
	b.key, err = sign.ParseKey(text, []byte(s.Password))
	return err
}

// keyText is the content of a key; what and hint are for people.
func (b *builder) keyText(s *Signing, what, hint string) ([]byte, error) {
	if s.KeyFile == "" {
		return []byte(s.KeyText), nil
	}
	var text []byte
	f, err := os.Open(b.file(s.KeyFile))
	if err == nil {
		text, err = io.ReadAll(io.LimitReader(f, maxKeyFile))
		_ = f.Close() // read only: nothing to lose
	}
	if err != nil {
		return nil, &diag.Error{What: "read " + what, Cause: err, Hint: hint}
	}
	return text, nil
}

// signed are the statements about one image that are signed with it.
type signed struct {
	about  attest.Subjects
	claims []claim
}

// sign adds signatures of the images and of the index, and of what is stated about the images. Users verify the index or the
// image, and verifiers show the one subject of a statement: so what is stated about an image is signed about its index, too.
func (b *builder) sign(out *output.Result, statements []signed, created time.Time) error {
	if b.key == nil {
		return nil
	}
	var targets []ocispec.Descriptor
	if out.HasIndex() {
		targets = append(targets, out.Index)
	}
	for _, im := range out.Images {
		targets = append(targets, im.Manifest)
	}
	for _, d := range targets {
		if err := b.signStatement(out, d, statement{sign.SignatureType, sign.Statement(d.Digest)}, created); err != nil {
			return err
		}
	}
	for i, s := range statements {
		if err := b.signClaims(out, out.Images[i].Manifest, s, created); err != nil {
			return err
		}
		s.about.Platform = ocispec.Platform{}
		if err := b.signClaims(out, out.Index, s, created); err != nil {
			return err
		}
	}
	return nil
}

// signClaims signs what is stated of an image, as being about d.
func (b *builder) signClaims(out *output.Result, d ocispec.Descriptor, s signed, created time.Time) error {
	s.about.Digest = d.Digest
	for _, c := range s.claims {
		data, err := attest.Statement(s.about, c.Predicate)
		if err != nil {
			return err
		}
		if err := b.signStatement(out, d, statement{c.Type, data}, created); err != nil {
			return err
		}
	}
	return nil
}

// statement is an in-toto statement and the type of its predicate.
type statement struct {
	kind string
	data []byte
}

// signStatement signs a statement about d and adds it as a referrer of that.
func (b *builder) signStatement(out *output.Result, d ocispec.Descriptor, s statement, created time.Time) error {
	bundle, err := b.key.Bundle(s.data)
	if err != nil {
		return fmt.Errorf("sign %s: %w", d.Digest, err)
	}
	a, err := sign.NewArtifact(d, s.kind, bundle, created)
	if err != nil {
		return err
	}
	out.Referrers = append(out.Referrers, output.Referrer{
		Subject: d.Digest,
		Image: output.Image{
			Manifest: a.Descriptor, ManifestData: a.Data, Config: a.Config, ConfigData: a.Config.Data,
			Layers: []output.Layer{{Descriptor: a.Layer, Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(bytes.NewReader(bundle)), nil
			}}},
		},
	})
	return nil
}
