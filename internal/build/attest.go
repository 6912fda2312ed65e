package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/attest"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sbom"
	"hako/internal/solve"
	"hako/internal/tree"
)

// Attestations are the statements that each image gets. The zero value is none.
type Attestations struct {
	// Provenance is how much the provenance says; 0 means that there is none.
	Provenance attest.Mode
	// BuilderID and Reproducible are what the user says of the builder and of the build.
	BuilderID    string
	Reproducible bool
	// InlineOnly keeps the provenance out of exported files; ProvenanceFile is its name there, "provenance.json" if empty.
	InlineOnly     bool
	ProvenanceFile string
	// SBOM asks for a list of what is in each image.
	SBOM bool
	// Version is hako's own, for what it signs with its name.
	Version string
}

// any says whether there are any.
func (a *Attestations) any() bool { return a.Provenance != 0 || a.SBOM }

// validateAttestations finds what attestations cannot be attached to.
func (r *Request) validateAttestations() error {
	a := &r.Attestations
	switch {
	case !a.any():
		return nil
	case r.Format != "" && r.Format != image.OCI.String():
		return &diag.Error{
			What: "an image in docker's format cannot have provenance or an SBOM",
			Hint: "Use --image-format=oci, or leave out --provenance and --sbom.",
		}
	case r.archives():
		return &diag.Error{
			What: "a docker archive has no place for provenance or an SBOM",
			Hint: "Write an OCI archive with --output type=oci,dest=FILE, or leave out --provenance and --sbom.",
		}
	case strings.ContainsAny(a.ProvenanceFile, "/\x00"), a.ProvenanceFile == ".", a.ProvenanceFile == "..":
		return fmt.Errorf("--attest type=provenance,filename=%s: it is not the name of a file", a.ProvenanceFile)
	}
	return nil
}

// claim is a predicate and the file that it is exported to.
type claim struct {
	attest.Predicate
	file string
}

// subject is an image while statements are made about it.
type subject struct {
	graph  *plan.Graph
	solved *solve.Result
	done   *finished
	image  *output.Image
}

// claims is what is said about an image.
func (b *builder) claims(ctx context.Context, s subject) ([]claim, error) {
	start := b.env.Now()
	defer func() { b.env.Events.Emit(event.Span{Name: "attest", Start: start, End: b.env.Now()}) }()
	claims, err := b.contents(ctx, s)
	if err != nil {
		return nil, err
	}
	if b.req.Attestations.Provenance != 0 {
		c, err := b.provenance(s)
		if err != nil {
			return nil, err
		}
		claims = append(claims, c)
	}
	return claims, nil
}

// attest makes the manifest of statements about an image, and has them exported with its files.
func (b *builder) attest(ctx context.Context, s subject) (*output.Image, signed, error) {
	claims, err := b.claims(ctx, s)
	if err != nil {
		return nil, signed{}, err
	}
	s.image.Documents = func(ctx context.Context, t tree.Tree) ([]output.Document, error) { return b.documents(ctx, t, claims) }
	about := attest.Subjects{References: b.req.names(), Platform: *s.image.Manifest.Platform, Digest: s.image.Manifest.Digest}
	out, err := attestations(s.image.Manifest, about, claims)
	return out, signed{about, claims}, err
}

// attestations is the manifest of statements about the image target.
func attestations(target ocispec.Descriptor, about attest.Subjects, claims []claim) (*output.Image, error) {
	var types []string
	var statements [][]byte
	for _, c := range claims {
		data, err := attest.Statement(about, c.Predicate)
		if err != nil {
			return nil, err
		}
		types, statements = append(types, c.Type), append(statements, data)
	}
	m, err := attest.NewManifest(target, types, statements)
	if err != nil {
		return nil, err
	}
	out := &output.Image{Manifest: m.Descriptor, ManifestData: m.Data, Config: m.Config, ConfigData: m.ConfigData}
	for i, d := range m.Layers {
		out.Layers = append(out.Layers, output.Layer{Descriptor: d, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(statements[i])), nil
		}})
	}
	return out, nil
}

// names are what the image is called.
func (r *Request) names() []string {
	out := slices.Concat(r.Outputs.Destinations, r.Outputs.Names, r.Outputs.Repositories)
	slices.Sort(out)
	return slices.Compact(out)
}

// contents lists what is in the image and, if the Dockerfile asks for it, in the context and other stages.
func (b *builder) contents(ctx context.Context, s subject) ([]claim, error) {
	if !b.req.Attestations.SBOM {
		return nil, nil
	}
	files, err := s.done.files.Tree(ctx)
	if err != nil {
		return nil, err
	}
	d := sbom.Document{Name: "sbom", Digest: s.image.Manifest.Digest, Layer: layerOf(files, s.image.Layers)}
	if names := b.req.names(); len(names) > 0 {
		d.Subject = repository(names[0])
	}
	core, err := b.list(ctx, files, s.graph, d)
	if err != nil {
		return nil, err
	}
	out := []claim{core}
	extras := map[string]func() (tree.Tree, error){}
	for st, stack := range s.solved.Listed {
		extras[st.ID()] = func() (tree.Tree, error) { return stack.Tree(ctx) }
	}
	if s.graph.Target.ListContext {
		extras["context"] = func() (tree.Tree, error) { return b.context.Tree(), nil }
	}
	for _, name := range slices.Sorted(maps.Keys(extras)) {
		t, err := extras[name]()
		if err != nil {
			return nil, err
		}
		c, err := b.list(ctx, t, s.graph, sbom.Document{Name: "sbom-" + name})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// list makes the list of one tree.
func (b *builder) list(ctx context.Context, t tree.Tree, g *plan.Graph, d sbom.Document) (claim, error) {
	inventory, err := sbom.Scan(ctx, t)
	if err != nil {
		return claim{}, fmt.Errorf("make %s: %w", d.Name, err)
	}
	for _, w := range inventory.Warnings {
		b.env.Events.Emit(event.Warning{Message: d.Name + ": " + w})
	}
	b.env.Events.Emit(event.Debug{Message: fmt.Sprintf("%s: %d packages", d.Name, len(inventory.Packages))})
	d.Created, d.Tool = b.now(g), "hako-"+b.req.Attestations.Version
	data, err := inventory.SPDX(d)
	if err != nil {
		return claim{}, err
	}
	return claim{attest.Predicate{Type: sbom.PredicateType, Data: data}, d.Name + ".spdx.json"}, nil
}

// repository is a reference without tag and digest.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref
}

// layerOf finds the layer that a file of the image came with. Layers that were merged are the last one.
func layerOf(files *rootfs.Tree, layers []output.Layer) func(string) digest.Digest {
	return func(p string) digest.Digest {
		n := min(files.Layer(p), len(layers)-1)
		if n < 0 {
			return ""
		}
		return layers[n].Digest
	}
}

// provenance says how the image was made.
func (b *builder) provenance(s subject) (claim, error) {
	a := &b.req.Attestations
	build := attest.Build{
		Mode: a.Provenance, BuilderID: a.BuilderID, InvocationID: b.invocation, Version: a.Version, Reproducible: a.Reproducible,
		Started: b.started, Finished: b.env.Now(), BuilderPlatform: image.Default(),
		Dockerfile: b.context.DockerfileName, Source: b.context.Dockerfile, Args: b.req.frontendArgs(), Resolved: b.trees.resolved,
		Context: b.source.URI, ContextDigest: b.source.Digest,
	}
	if b.req.Squash == SquashNone {
		build.Layers = []ocispec.Descriptor{}
		for _, l := range s.image.Layers {
			build.Layers = append(build.Layers, l.Descriptor)
		}
	}
	p, err := attest.Provenance(s.graph, build)
	return claim{p, firstOf(a.ProvenanceFile, "provenance.json")}, err
}

func firstOf(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// frontendArgs are the request in the words of BuildKit's front end. What depends on the machine is left out, as there.
func (r *Request) frontendArgs() map[string]string {
	out := map[string]string{}
	set := func(k, v string) {
		if v != "" {
			out[k] = v
		}
	}
	for k, v := range r.BuildArgs {
		out["build-arg:"+k] = v
	}
	for _, l := range r.Labels {
		out["label:"+l.Key] = l.Value
	}
	set("target", r.Target)
	set("force-network-mode", r.Network)
	if r.NoCache {
		out["no-cache"] = ""
	}
	var hosts []string
	for _, h := range r.ExtraHosts {
		hosts = append(hosts, h.Key+"="+h.Value)
	}
	set("add-hosts", strings.Join(hosts, ","))
	if r.ShmSizeBytes > 0 {
		out["shmsize"] = strconv.FormatInt(r.ShmSizeBytes, 10)
	}
	for _, c := range r.NamedContexts {
		if strings.Contains(c.Value, "://") || strings.HasPrefix(c.Value, "target:") { // others are local directories
			out["context:"+c.Key] = withoutQuery(c.Value)
		}
	}
	return out
}

// withoutQuery drops what may be a secret at the end of a URL.
func withoutQuery(s string) string {
	s, _, _ = strings.Cut(s, "?")
	return s
}

// documents are the statements about exported files: each file is a subject.
func (b *builder) documents(ctx context.Context, t tree.Tree, claims []claim) ([]output.Document, error) {
	files, err := fileDigests(ctx, t, ".", nil)
	if err != nil {
		return nil, err
	}
	var out []output.Document
	for _, c := range claims {
		if c.Type == attest.ProvenanceType && b.req.Attestations.InlineOnly {
			continue
		}
		data, err := attest.FileStatement(files, c.Predicate)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(d output.Document) bool { return d.Name == c.file }) {
			return nil, fmt.Errorf("export statements: %s would be written twice", c.file)
		}
		out = append(out, output.Document{Name: c.file, Data: data, Time: b.env.Now()})
	}
	return out, nil
}

// fileDigests hashes every regular file below dir, in order.
func fileDigests(ctx context.Context, t tree.Tree, dir string, out []attest.File) ([]attest.File, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	names, err := t.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e, err := t.Lstat(p)
		if err != nil {
			return nil, err
		}
		switch e.Kind {
		case tree.Dir:
			out, err = fileDigests(ctx, t, p, out)
		case tree.Regular:
			var sum string
			sum, err = fileDigest(t, p)
			out = append(out, attest.File{Name: p, SHA256: sum})
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func fileDigest(t tree.Tree, p string) (_ string, err error) {
	rc, err := t.Open(p)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	h := sha256.New()
	_, err = io.Copy(h, rc)
	return hex.EncodeToString(h.Sum(nil)), err
}
