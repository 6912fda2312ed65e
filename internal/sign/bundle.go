package sign

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// bundleType is the media type of a Sigstore bundle and the artifact type of its manifest.
	bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	// payloadType is what DSSE calls an in-toto statement.
	payloadType = "application/vnd.in-toto+json"
	// SignatureType is the predicate type with which cosign says no more than "this is signed".
	SignatureType = "https://sigstore.dev/cosign/sign/v1"
)

// A bundle (https://docs.sigstore.dev/about/bundle/) with a bare key and without a log.
type (
	bundle struct {
		MediaType string   `json:"mediaType"`
		Material  material `json:"verificationMaterial"`
		Envelope  envelope `json:"dsseEnvelope"`
	}
	material struct {
		PublicKey publicKey `json:"publicKey"`
	}
	publicKey struct {
		Hint string `json:"hint"`
	}
	envelope struct {
		Payload     []byte      `json:"payload"` // base64 in JSON
		PayloadType string      `json:"payloadType"`
		Signatures  []signature `json:"signatures"`
	}
	signature struct {
		Sig []byte `json:"sig"`
	}
)

// Bundle signs an in-toto statement and wraps both for verifiers.
func (k *Key) Bundle(statement []byte) ([]byte, error) {
	sig, err := k.sign(preAuthentication(statement))
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(bundle{
		MediaType: bundleType, Material: material{publicKey{k.hint()}},
		Envelope: envelope{Payload: statement, PayloadType: payloadType, Signatures: []signature{{sig}}},
	})
	if err != nil {
		return nil, fmt.Errorf("encode a bundle: %w", err)
	}
	return out, nil
}

// preAuthentication is what DSSE signs (https://github.com/secure-systems-lab/dsse/blob/master/protocol.md).
func preAuthentication(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Statement says of a manifest that it is signed, in cosign's words.
func Statement(d digest.Digest) []byte {
	return fmt.Appendf(nil,
		`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{%q:%q},"annotations":{}}],"predicateType":%q,"predicate":{}}`,
		d.Algorithm().String(), d.Encoded(), SignatureType)
}

// Artifact is a bundle as a registry stores it.
type Artifact struct {
	// Descriptor names Data, the manifest; it has the artifact type and the annotations of a list of referrers.
	Descriptor ocispec.Descriptor
	Data       []byte
	// Config names the empty JSON object, Layer the bundle.
	Config, Layer ocispec.Descriptor
	Bundle        []byte
}

// NewArtifact makes the manifest for a bundle about subject; predicateType is that of the statement in it.
func NewArtifact(subject ocispec.Descriptor, predicateType string, bundle []byte, created time.Time) (*Artifact, error) {
	out := &Artifact{
		Config: ocispec.DescriptorEmptyJSON, Bundle: bundle,
		Layer: ocispec.Descriptor{MediaType: bundleType, Digest: digest.FromBytes(bundle), Size: int64(len(bundle))},
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundleType,
		Config: out.Config, Layers: []ocispec.Descriptor{out.Layer},
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{ // cosign's
			"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": predicateType,
			ocispec.AnnotationCreated: created.UTC().Format(time.RFC3339),
		},
	}
	var err error
	if out.Data, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("encode the manifest of a signature of %s: %w", subject.Digest, err)
	}
	out.Descriptor = ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(out.Data), Size: int64(len(out.Data)), ArtifactType: bundleType, Annotations: m.Annotations,
	}
	return out, nil
}
