package output

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
)

// writeDigestFiles writes the files that name the digest. They have kaniko's form: the digest alone without a
// line end, and a line for each destination with Docker Hub as "index.docker.io". Where both files with names are asked for,
// both have the tags: jobs read them so, since kaniko has always written one text to both.
func (o *Output) writeDigestFiles(ctx context.Context, d digest.Digest) error {
	var names, tags strings.Builder
	for _, r := range o.digests {
		fmt.Fprintf(&names, "%s@%s\n", r.Name(), d)
		fmt.Fprintf(&tags, "%s@%s\n", r.Name(), d)
	}
	for _, t := range o.named {
		fmt.Fprintf(&names, "%s@%s\n", t.Context().Name(), d)
		fmt.Fprintf(&tags, "%s:%s@%s\n", t.Context().Name(), t.TagStr(), d)
	}
	withName := names.String()
	if o.options.NameTagWithDigestFile != "" {
		withName = tags.String()
	}
	for _, f := range []struct{ path, text string }{
		{o.options.DigestFile, d.String()},
		{o.options.NameWithDigestFile, withName},
		{o.options.NameTagWithDigestFile, tags.String()},
	} {
		if f.path == "" {
			continue
		}
		if err := o.writeSmall(ctx, f.path, f.text); err != nil {
			return err
		}
	}
	return nil
}

// metadata is what buildx writes about a result.
type metadata struct {
	ConfigDigest digest.Digest      `json:"containerimage.config.digest,omitempty"`
	Descriptor   ocispec.Descriptor `json:"containerimage.descriptor"`
	Digest       digest.Digest      `json:"containerimage.digest"`
	Name         string             `json:"image.name,omitempty"`
}

// TerminationLog is the file of Kubernetes that ends up in a pod's status, by default (terminationMessagePath); MaxTermination is how
// much of it does, in bytes: the end.
const (
	TerminationLog = "/dev/termination-log"
	MaxTermination = 4096
)

// brief is the metadata without what has no bounds and is known to whoever asked for the build: names and annotations.
func (m metadata) brief() ([]byte, error) {
	m.Name, m.Descriptor.Annotations = "", nil
	return json.Marshal(m)
}

// Described is what files tell of a result.
type Described struct {
	// Top is what a tag points to. Config is the digest of the image's configuration; it is empty for an index.
	Top    ocispec.Descriptor
	Config digest.Digest
	// Names are those that the image was given, as they were written.
	Names []string
}

func (r *Result) described() Described {
	var d Described
	d.Top, _ = r.top()
	if !r.HasIndex() {
		d.Config = r.Images[0].Config.Digest
	}
	return d
}

// ReadMetadata reads what a build has written to its MetadataFile.
func ReadMetadata(data []byte) (Described, error) {
	var m metadata
	if err := json.Unmarshal(data, &m); err != nil {
		return Described{}, fmt.Errorf("read the metadata of the image: %w", err)
	}
	if err := m.Digest.Validate(); err != nil || m.Descriptor.Digest != m.Digest {
		return Described{}, fmt.Errorf("read the metadata of the image: %q is not its digest", m.Digest)
	}
	d := Described{Top: m.Descriptor, Config: m.ConfigDigest}
	if m.Name != "" {
		d.Names = strings.Split(m.Name, ",")
	}
	return d, nil
}

// WriteFiles writes the files that tell of a result, but none of the result, which was made elsewhere.
func (o *Output) WriteFiles(ctx context.Context, d Described) error {
	if err := o.writeDigestFiles(ctx, d.Top.Digest); err != nil {
		return err
	}
	if o.pushes() {
		if err := o.writeBuilderOutput(d.Top.Digest); err != nil {
			return err
		}
	}
	return o.writeMetadata(ctx, d)
}

// writeMetadata writes the files of buildx. What depends on buildx itself, such as the reference of a build in its history, is left out.
func (o *Output) writeMetadata(ctx context.Context, d Described) error {
	m := metadata{ConfigDigest: d.Config, Descriptor: d.Top, Digest: d.Top.Digest, Name: strings.Join(o.names(), ",")}
	id := d.Config
	if id == "" {
		id = m.Digest
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	if o.options.MetadataFile == TerminationLog && len(data) > MaxTermination {
		if data, err = m.brief(); err != nil {
			return fmt.Errorf("write the metadata: %w", err)
		}
	}
	for _, f := range []struct{ path, text string }{{o.options.MetadataFile, string(data)}, {o.options.IIDFile, id.String()}} {
		if f.path == "" {
			continue
		}
		if err := o.writeSmall(ctx, f.path, f.text); err != nil {
			return err
		}
	}
	return nil
}

// names are those of the image: the destinations and what exports call it, as they were written, each once.
func (o *Output) names() []string {
	all := slices.Concat(o.options.Destinations, o.options.Names, o.options.Repositories)
	for _, e := range o.options.Exports {
		all = append(all, e.Names...)
	}
	var out []string
	for _, n := range all {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// writeSmall writes a small file in place: it may be a device, a pipe or a mount point
// (/dev/termination-log), which a rename could not replace. A URL is PUT to.
func (o *Output) writeSmall(ctx context.Context, path, text string) error {
	if strings.HasPrefix(path, "https://") {
		if err := o.client.PutURL(ctx, path, "text/plain", []byte(text)); err != nil {
			return &diag.Error{What: "send the image's digest", Cause: err}
		}
		return nil
	}
	const private = 0o700 // kaniko: parent directories
	err := os.MkdirAll(filepath.Dir(path), private)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		return &diag.Error{
			What: "write the image's digest", Cause: err,
			Hint: "Choose a file in a directory that this user may write to.",
		}
	}
	return nil
}

// writeBuilderOutput tells Google Cloud Build what was pushed.
func (o *Output) writeBuilderOutput(d digest.Digest) error {
	if o.options.BuilderOutputDir == "" {
		return nil
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	for _, t := range o.tags {
		line := struct {
			Name   string `json:"name"`
			Digest string `json:"digest"`
		}{t.String(), d.String()}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("write the list of pushed images: %w", err)
		}
	}
	if err := os.WriteFile(filepath.Join(o.options.BuilderOutputDir, "images"), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the list of pushed images: %w", err)
	}
	return nil
}
