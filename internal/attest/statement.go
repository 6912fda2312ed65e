// Package attest says how an image was made and what is in it: provenance after SLSA 1, wrapped with other predicates
// into in-toto statements, and these into the manifest that stands beside the image in its index.
//
// The forms are BuildKit's, so that what shows its attestations shows these. What is in them is ours: see docs/attestations.md.
package attest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/purl"
)

const (
	// statementType is in-toto's (https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md).
	statementType = "https://in-toto.io/Statement/v1"
	// mediaType is that of a statement as a blob.
	mediaType = "application/vnd.in-toto+json"
	// artifactType is BuildKit's for a manifest of statements.
	artifactType = "application/vnd.docker.attestation.manifest.v1+json"
	// The annotations are BuildKit's (docs/attestations/attestation-storage.md).
	predicateAnnotation = "in-toto.io/predicate-type"
	typeAnnotation      = "vnd.docker.reference.type"
	digestAnnotation    = "vnd.docker.reference.digest"
)

// MaxStatement bounds a predicate, in bytes, as BuildKit does.
const MaxStatement = 80 << 20

// Predicate is what a statement says of its subjects.
type Predicate struct {
	// Type is a URI; Data is JSON.
	Type string
	Data []byte
}

// Subjects are the names of what statements are about.
type Subjects struct {
	// References are what the image is pushed as; without any, it is "_", as in BuildKit's documentation.
	References []string
	// Platform is that of the image; its zero value is for an index.
	Platform ocispec.Platform
	Digest   digest.Digest
}

type (
	statement struct {
		Type          string          `json:"_type"`
		PredicateType string          `json:"predicateType"`
		Subject       []subject       `json:"subject"`
		Predicate     json.RawMessage `json:"predicate"`
	}
	subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
)

// Statement wraps a predicate.
func Statement(s Subjects, p Predicate) ([]byte, error) {
	if len(p.Data) > MaxStatement {
		return nil, fmt.Errorf("make a statement of type %s: it has more than %d bytes", p.Type, MaxStatement)
	}
	st := statement{Type: statementType, PredicateType: p.Type, Predicate: p.Data}
	for _, ref := range s.References {
		name, err := purl.Image(ref, s.Platform)
		if err != nil {
			return nil, err
		}
		st.Subject = append(st.Subject, subject{name, digestSet(s.Digest)})
	}
	if len(st.Subject) == 0 {
		st.Subject = []subject{{"_", digestSet(s.Digest)}}
	}
	out, err := encode(st)
	if err != nil {
		return nil, fmt.Errorf("make a statement of type %s: %w", p.Type, err)
	}
	return out, nil
}

// File is a file that a statement is about.
type File struct{ Name, SHA256 string }

// FileStatement wraps a predicate about files.
func FileStatement(files []File, p Predicate) ([]byte, error) {
	st := statement{Type: statementType, PredicateType: p.Type, Predicate: p.Data, Subject: []subject{}}
	for _, f := range files {
		st.Subject = append(st.Subject, subject{f.Name, map[string]string{"sha256": f.SHA256}})
	}
	out, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("make a statement of type %s: %w", p.Type, err)
	}
	return out, nil
}

func digestSet(d digest.Digest) map[string]string {
	return map[string]string{d.Algorithm().String(): d.Encoded()}
}

// encode leaves "<", ">" and "&" as they are.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Manifest is a manifest whose layers are statements about one image.
type Manifest struct {
	// Descriptor names Data, with the annotations and the platform that an index has for it.
	Descriptor ocispec.Descriptor
	Data       []byte
	// Config names ConfigData, the empty JSON object.
	Config     ocispec.Descriptor
	ConfigData []byte
	// Layers are the statements' descriptors, in the order of the statements.
	Layers []ocispec.Descriptor
}

// NewManifest wraps statements about the image whose manifest is target; types are their predicates'.
func NewManifest(target ocispec.Descriptor, types []string, statements [][]byte) (*Manifest, error) {
	out := &Manifest{Config: ocispec.DescriptorEmptyJSON, ConfigData: ocispec.DescriptorEmptyJSON.Data}
	for i, data := range statements {
		out.Layers = append(out.Layers, ocispec.Descriptor{
			MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data)),
			Annotations: map[string]string{predicateAnnotation: types[i]},
		})
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: out.Config, Layers: out.Layers,
		Subject: &ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size},
	}
	var err error
	if out.Data, err = json.MarshalIndent(m, "", "  "); err != nil {
		return nil, fmt.Errorf("encode the manifest of statements about %s: %w", target.Digest, err)
	}
	out.Descriptor = ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(out.Data), Size: int64(len(out.Data)),
		Annotations: map[string]string{typeAnnotation: "attestation-manifest", digestAnnotation: target.Digest.String()},
		Platform:    &ocispec.Platform{Architecture: "unknown", OS: "unknown"},
	}
	return out, nil
}

// Target is the image that the manifest which d describes states something about; empty if d is no manifest of statements.
func Target(d ocispec.Descriptor) digest.Digest {
	if d.Annotations[typeAnnotation] != "attestation-manifest" {
		return ""
	}
	return digest.Digest(d.Annotations[digestAnnotation])
}

// ParseStatement is the predicate of a statement.
func ParseStatement(data []byte) (Predicate, error) {
	var st statement
	if err := json.Unmarshal(data, &st); err != nil {
		return Predicate{}, fmt.Errorf("read a statement: %w", err)
	}
	if st.Type == "" || st.PredicateType == "" || len(st.Predicate) == 0 {
		return Predicate{}, errors.New("read a statement: it has no type or says nothing")
	}
	return Predicate{Type: st.PredicateType, Data: st.Predicate}, nil
}
