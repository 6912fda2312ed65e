package build_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"hako/internal/attest"
	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/output"
	"hako/internal/schematest"
)

// statement is what is read of one.
type statement struct {
	Type          string `json:"_type"`
	PredicateType string
	Subject       []struct {
		Name   string
		Digest map[string]string
	}
	Predicate json.RawMessage
}

// about reads the statements about the image of a platform from an index, by what they say: "sbom", "provenance"….
func about(t *testing.T, index v1.ImageIndex, target v1.Hash) map[string]statement {
	t.Helper()
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]statement{}
	for _, d := range m.Manifests {
		if d.Annotations["vnd.docker.reference.digest"] != target.String() {
			continue
		}
		if d.Annotations["vnd.docker.reference.type"] != "attestation-manifest" || d.Platform.String() != "unknown/unknown" {
			t.Errorf("descriptor %+v", d)
		}
		im, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := im.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			rc, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(rc)
			if err != nil {
				t.Fatal(err)
			}
			var s statement
			if err := json.Unmarshal(data, &s); err != nil {
				t.Fatal(err)
			}
			out[title(t, s)] = s
		}
	}
	return out
}

// title is "provenance", or the name of an SPDX document, which is held against its schema.
func title(t *testing.T, s statement) string {
	t.Helper()
	if s.PredicateType == attest.ProvenanceType {
		return "provenance"
	}
	schematest.Validate(t, "../sbom/testdata/spdx-2.3.schema.json", s.Predicate)
	var doc struct{ Name string }
	if err := json.Unmarshal(s.Predicate, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Name
}

// packages are the package URLs of an SPDX statement.
func packages(t *testing.T, s statement) []string {
	t.Helper()
	var doc struct {
		Packages []struct {
			ExternalRefs []struct{ ReferenceLocator string }
		}
		Files []struct{ FileName, Comment string }
	}
	if err := json.Unmarshal(s.Predicate, &doc); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range doc.Packages {
		for _, r := range p.ExternalRefs {
			if !strings.HasPrefix(r.ReferenceLocator, "pkg:oci/") && !strings.HasPrefix(r.ReferenceLocator, "pkg:golang/stdlib@") {
				out = append(out, r.ReferenceLocator)
			}
		}
	}
	return out
}

const attested = `ARG BUILDKIT_SBOM_SCAN_STAGE=tools
FROM scratch AS tools
COPY prog /prog
COPY tool.json /node_modules/tool/package.json
RUN ["/prog", "write", "/made", "x"]
FROM scratch AS other
COPY tool.json /node_modules/other/package.json
FROM scratch
ARG BUILDKIT_SBOM_SCAN_CONTEXT=true
ARG TOKEN
COPY --from=tools /made /made
COPY --from=other /node_modules /x
COPY lib.json /node_modules/lib/package.json
`

func attestedWorld(t *testing.T) (*world, build.Request) {
	t.Helper()
	w := newWorld(t, attested)
	w.write(t, "tool.json", `{"name":"tool","version":"1.0.0"}`)
	w.write(t, "lib.json", `{"name":"lib","version":"2.0.0","license":"MIT"}`)
	w.write(t, "package-lock.json", `{"packages":{"node_modules/dev":{"version":"3.0.0"}}}`)
	req := w.request()
	req.BuildArgs = map[string]string{"TOKEN": "hunter2"}
	req.Attestations = build.Attestations{Provenance: attest.Max, SBOM: true, Version: "v1.2.3"}
	return w, req
}

func (w *world) index(t *testing.T, tag string) v1.ImageIndex {
	t.Helper()
	ref, err := name.ParseReference(w.host + "/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	return index
}

func TestAttestationsStandBesideTheImage(t *testing.T) {
	t.Parallel()
	w, req := attestedWorld(t)
	req.Outputs.DigestFile = filepath.Join(t.TempDir(), "digest")
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	index := w.index(t, "out:1")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 2 {
		t.Fatalf("%d manifests", len(m.Manifests))
	}
	target := m.Manifests[0]
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(req.Outputs.DigestFile); err != nil || string(text) != digest.String() {
		t.Errorf("digest file: %q, %v, want the index's %s", text, err, digest)
	}
	got := about(t, index, target.Digest)
	for title, want := range map[string][]string{
		"sbom":         {"pkg:npm/lib@2.0.0"},
		"sbom-tools":   {"pkg:npm/tool@1.0.0"},
		"sbom-context": {"pkg:npm/dev@3.0.0"},
	} {
		s, ok := got[title]
		if !ok {
			t.Errorf("%s is missing", title)
			continue
		}
		list := slices.DeleteFunc(packages(t, s), func(p string) bool { return strings.HasPrefix(p, "pkg:golang/") }) // of prog
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("%s: %s", title, diff)
		}
		delete(got, title)
	}
	p := got["provenance"]
	if delete(got, "provenance"); len(got) > 0 {
		t.Errorf("there is more: %v", got)
	}
	if s := p.Subject[0]; s.Digest["sha256"] != target.Digest.Hex || !strings.Contains(s.Name, "/out@1?platform=linux%2F") {
		t.Errorf("subject %+v", s)
	}
	if !bytes.Contains(p.Predicate, []byte(`"build-arg:TOKEN":"hunter2"`)) {
		t.Error("max does not have the build argument")
	}
}

// TestLayersOfEvidence has every file of a list name the layer that it came with.
func TestLayersOfEvidence(t *testing.T) {
	t.Parallel()
	w, req := attestedWorld(t)
	req.Attestations.Provenance = 0
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	index := w.index(t, "out:1")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	im, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := im.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Files []struct{ FileName, Comment string }
	}
	if err := json.Unmarshal(about(t, index, m.Manifests[0].Digest)["sbom"].Predicate, &doc); err != nil {
		t.Fatal(err)
	}
	last := layers.Layers[len(layers.Layers)-1].Digest
	if len(doc.Files) != 1 || doc.Files[0].FileName != "/node_modules/lib/package.json" || doc.Files[0].Comment != "layerID: "+last.String() {
		t.Errorf("got %+v, want the last layer %s", doc.Files, last)
	}
}

func TestMinimalProvenanceTellsNoValues(t *testing.T) {
	t.Parallel()
	w, req := attestedWorld(t)
	req.Attestations = build.Attestations{Provenance: attest.Min, BuilderID: "https://ci.example.com/1"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	index := w.index(t, "out:1")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	p := about(t, index, m.Manifests[0].Digest)["provenance"]
	if bytes.Contains(p.Predicate, []byte("hunter2")) || bytes.Contains(p.Predicate, []byte("node_modules")) {
		t.Errorf("it tells too much: %s", p.Predicate)
	}
	if !bytes.Contains(p.Predicate, []byte("https://ci.example.com/1")) {
		t.Error("the builder's ID is missing")
	}
}

// TestAttestationsOfSeveralPlatforms has one manifest of statements for each image.
func TestAttestationsOfSeveralPlatforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY lib.json /node_modules/lib/package.json\n")
	w.write(t, "lib.json", `{"name":"lib","version":"2.0.0"}`)
	req := w.request()
	req.Platforms = []string{"linux/amd64", "linux/arm64"}
	req.Attestations = build.Attestations{Provenance: attest.Max, SBOM: true}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	index := w.index(t, "out:1")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, d := range m.Manifests {
		platforms = append(platforms, d.Platform.String())
	}
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm64", "unknown/unknown", "unknown/unknown"}, platforms); diff != "" {
		t.Error(diff)
	}
	for _, d := range m.Manifests[:2] {
		got := about(t, index, d.Digest)
		if len(got) != 2 || !bytes.Contains(got["provenance"].Predicate, []byte(`"targetPlatform":"`+d.Platform.String()+`"`)) {
			t.Errorf("%s: got %v", d.Platform, got)
		}
	}
}

// TestExportedStatements has the statements beside exported files, about these.
func TestExportedStatements(t *testing.T) {
	t.Parallel()
	w, req := attestedWorld(t)
	dir := t.TempDir()
	req.Outputs = build.Outputs{NoPush: true, Exports: []output.Export{{Kind: output.Local, Dest: dir}}}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	for _, name := range []string{"provenance.json", "sbom.spdx.json", "sbom-context.spdx.json", "sbom-tools.spdx.json"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		var s statement
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		var about []string
		for _, f := range s.Subject {
			about = append(about, f.Name)
		}
		if diff := cmp.Diff([]string{"made", "node_modules/lib/package.json", "x/other/package.json"}, about); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAttestationsRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*build.Request){
		"docker's format cannot have provenance": func(r *build.Request) { r.Format = "docker" },
		"a docker archive has no place":          func(r *build.Request) { r.Outputs.TarPath = "x.tar" },
		"is not the name of a file":              func(r *build.Request) { r.Attestations.ProvenanceFile = "../x" },
	} {
		w, req := attestedWorld(t)
		change(&req)
		err := w.build(t.Context(), req, event.Discard{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
		if w.pushed(t, "out:1") {
			t.Error("the tag exists")
		}
	}
}

// warnings collects them.
type warnings struct{ texts []string }

func (w *warnings) Emit(e event.Event) {
	if e, ok := e.(event.Warning); ok {
		w.texts = append(w.texts, e.Message)
	}
}

// TestBrokenDatabaseIsAWarning builds an image whose package database makes no sense.
func TestBrokenDatabaseIsAWarning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY rubbish /lib/apk/db/installed\n")
	w.write(t, "rubbish", "rubbish")
	req := w.request()
	req.Attestations.SBOM = true
	var sink warnings
	if err := w.build(t.Context(), req, &sink); err != nil {
		t.Fatal(diag.Format(err))
	}
	if diff := cmp.Diff([]string{"sbom: lib/apk/db/installed: the database names no package"}, sink.texts); diff != "" {
		t.Error(diff)
	}
}

// TestAttestationNamesWithoutDestination has statements about an image that has no name.
func TestAttestationNamesWithoutDestination(t *testing.T) {
	t.Parallel()
	w, req := attestedWorld(t)
	dir := filepath.Join(t.TempDir(), "layout")
	req.Outputs = build.Outputs{NoPush: true, OCILayoutPath: dir}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	found := false
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		found = found || bytes.Contains(data, []byte(`"subject":[{"name":"_"`))
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if !found {
		t.Error("no statement is about \"_\"")
	}
}

// TestRequestInProvenance has the choices of the request in the words of BuildKit's front end.
func TestRequestInProvenance(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch AS a\nCOPY lib.json /l\nFROM scratch\n")
	w.write(t, "lib.json", "{}")
	req := w.request()
	req.Target, req.Network, req.NoCache, req.ShmSizeBytes = "a", "none", true, 1<<20
	req.Labels = []build.KeyValue{{Key: "l", Value: "v"}}
	req.ExtraHosts = []build.KeyValue{{Key: "h", Value: "10.0.0.1"}}
	req.NamedContexts = []build.KeyValue{{Key: "c", Value: "https://user:hunter2@example.com/x?token=hunter2"}, {Key: "d", Value: w.context}}
	req.Attestations.Provenance = attest.Max
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	index := w.index(t, "out:1")
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	p := about(t, index, m.Manifests[0].Digest)["provenance"]
	var got struct {
		BuildDefinition struct {
			ExternalParameters struct {
				Request struct{ Args map[string]string }
			}
		}
	}
	if err := json.Unmarshal(p.Predicate, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"target": "a", "force-network-mode": "none", "no-cache": "", "shmsize": "1048576", "label:l": "v", "add-hosts": "h=10.0.0.1",
		"context:c": "https://xxxxx@example.com/x",
	}
	if diff := cmp.Diff(want, got.BuildDefinition.ExternalParameters.Request.Args); diff != "" {
		t.Error(diff)
	}
	if bytes.Contains(p.Predicate, []byte("hunter2")) {
		t.Error("a password is in it")
	}
}
