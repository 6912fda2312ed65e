package attest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"hako/internal/attest"
	"hako/internal/dockerfile"
	"hako/internal/image"
	"hako/internal/plan"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// bases resolves every image.
type bases struct{}

func (bases) Resolve(_ context.Context, name string, p ocispec.Platform) (*plan.ImageRef, error) {
	return &plan.ImageRef{
		Name: name, Ref: name, Digest: digest.FromString(name), MediaType: ocispec.MediaTypeImageManifest,
		Platform: p, Config: &image.Config{},
	}, nil
}

func (b bases) ResolveLayout(ctx context.Context, tag string, p ocispec.Platform) (*plan.ImageRef, error) {
	return b.Resolve(ctx, tag, p)
}

func graph(t *testing.T, text string, opts plan.Options) *plan.Graph {
	t.Helper()
	file, err := dockerfile.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	opts.Platform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	opts.BuildPlatform = opts.Platform
	g, err := plan.Build(t.Context(), file, opts, bases{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// simple is what testdata/buildkit.json was made of, by BuildKit v0.34.2:
// buildctl build --opt build-arg:FOO=x --opt label:q=r --opt attest:provenance=mode=max --output type=oci,name=example.com/a/b:1
const simple = `# a comment
FROM scratch AS a
ARG FOO=bar
COPY Dockerfile /x
FROM scratch
LABEL a=b
COPY --from=a /x /y
ENV Z=1
WORKDIR /w
`

const rich = `FROM debian:12 AS base
RUN apt-get update && \
    true
FROM --platform=linux/arm64 tools:1 AS tools
COPY --from=base /etc/passwd /p
FROM base
ARG TOKEN
ARG HTTP_PROXY
COPY --from=tools /bin/tool /bin/
COPY --from=other:3 /x /y
COPY --from=dir /z /z
COPY . /src
ADD https://user@example.com/f?token=t0ken /f
RUN --mount=type=secret,id=key,required --mount=type=secret,id=key,env=K --mount=type=secret,id=a --mount=type=ssh \
    --mount=type=bind,from=mounted:1,target=/m make <<EOF
all of it
EOF
`

func build(text string, mode attest.Mode, layers int) attest.Build {
	b := attest.Build{
		Mode: mode, InvocationID: "n27noid3iddkwaon0z808b6s6", Version: "v1.2.3",
		Started: time.Unix(1700000000, 123456789), Finished: time.Unix(1700000060, 0),
		BuilderPlatform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Dockerfile: "Dockerfile", Source: []byte(text),
		Args: map[string]string{"build-arg:FOO": "x", "label:q": "r"},
	}
	for i := range layers {
		b.Layers = append(b.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes([]byte{byte(i)}), Size: int64(i)})
	}
	return b
}

func statement(t *testing.T, g *plan.Graph, b attest.Build) []byte {
	t.Helper()
	p, err := attest.Provenance(g, b)
	if err != nil {
		t.Fatal(err)
	}
	out, err := attest.Statement(attest.Subjects{
		References: []string{"example.com/a/b:1"}, Platform: g.Target.Platform, Digest: digest.FromString("manifest"),
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// valid holds a statement against in-toto's and SLSA's own definitions (protocol buffers, of which JSON is a form).
// SLSA allows other fields anywhere; those are BuildKit's.
func valid(t *testing.T, data []byte) {
	t.Helper()
	var st intoto.Statement
	if err := protojson.Unmarshal(data, &st); err != nil {
		t.Fatal(err)
	}
	if err := st.Validate(); err != nil {
		t.Error(err)
	}
	if st.GetPredicateType() != attest.ProvenanceType {
		return
	}
	predicate, err := protojson.Marshal(st.GetPredicate())
	if err != nil {
		t.Fatal(err)
	}
	var p provenance.Provenance
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(predicate, &p); err != nil {
		t.Fatal(err)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestProvenance(t *testing.T) {
	t.Parallel()
	contexts := plan.Options{Contexts: map[string]string{"dir": "./somewhere"}}
	remote := build(simple, attest.Min, 2)
	remote.Context, remote.ContextDigest = "https://example.com/r.git#main", "sha1:4b220de5058abfd01ff619c9d2ff6b09a049bea0"
	remote.BuilderID, remote.Reproducible = "https://ci.example.com/7", true
	args := build(rich, attest.Max, 8)
	args.Args = map[string]string{"build-arg:HTTP_PROXY": "http://user:hunter2@proxy:8080", "target": "x"}
	args.Resolved = func(s *plan.Source) string {
		if s.HTTP == nil {
			return ""
		}
		return "sha256:" + strings.Repeat("7", 64)
	}
	for name, c := range map[string]struct {
		graph *plan.Graph
		build attest.Build
	}{
		"simple-max": {graph(t, simple, plan.Options{}), build(simple, attest.Max, 2)},
		"simple-min": {graph(t, simple, plan.Options{}), build(simple, attest.Min, 2)},
		"remote-min": {graph(t, simple, plan.Options{}), remote},
		"rich-max":   {graph(t, rich, contexts), args},
		"empty-max":  {graph(t, "FROM scratch\nLABEL a=b\n", plan.Options{}), build("FROM scratch\nLABEL a=b\n", attest.Max, 0)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := statement(t, c.graph, c.build)
			valid(t, data)
			if bytes.Contains(data, []byte("hunter2")) || bytes.Contains(data, []byte("t0ken")) {
				t.Error("a password is in it")
			}
			var got bytes.Buffer
			if err := json.Indent(&got, data, "", " "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			golden := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// paths lists the members of a JSON document, "a.b[].c".
func paths(out map[string]bool, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			if strings.HasPrefix(k, "step") && strings.Trim(k[4:], "0123456789:") == "" {
				k = "stepN"
			}
			paths(out, at+"."+k, value)
		}
	case []any:
		for _, value := range v {
			paths(out, at+"[]", value)
		}
	default:
		out[at] = true
	}
}

// TestAsBuildKit compares what is said with what BuildKit says of the same Dockerfile. What differs is listed here
// and explained in docs/attestations.md.
func TestAsBuildKit(t *testing.T) {
	t.Parallel()
	theirs, ours := map[string]bool{}, map[string]bool{}
	data, err := os.ReadFile("testdata/buildkit.json")
	if err != nil {
		t.Fatal(err)
	}
	for into, doc := range map[*map[string]bool][]byte{&theirs: data, &ours: statement(t, graph(t, simple, plan.Options{}), build(simple, attest.Max, 2))} {
		var v any
		if err := json.Unmarshal(doc, &v); err != nil {
			t.Fatal(err)
		}
		paths(*into, "", v)
	}
	differs := func(p string) bool {
		for _, other := range []string{
			".internalParameters.buildConfig.",         // our steps are not LLB
			".buildkit_metadata.source.infos[].llb",    // likewise
			".buildkit_metadata.source.infos[].digest", // likewise
			".externalParameters.request.root.",        // the request once more
			".request.compatibilityVersion",            // BuildKit's own
			".internalParameters.dockerfileVersion",    // likewise
			".externalParameters.configSource.path",    // BuildKit says it where the client does
			".runDetails.builder.version.hako",         // ours
		} {
			if strings.Contains(p, other) {
				return true
			}
		}
		return false
	}
	for _, m := range []map[string]bool{theirs, ours} {
		maps.DeleteFunc(m, func(p string, _ bool) bool { return differs(p) })
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(theirs)), slices.Sorted(maps.Keys(ours))); diff != "" {
		t.Errorf("BuildKit (-) and we (+) say:\n%s", diff)
	}
}

func TestStatementWithoutName(t *testing.T) {
	t.Parallel()
	data, err := attest.Statement(attest.Subjects{Digest: digest.FromString("x")}, attest.Predicate{Type: "https://spdx.dev/Document", Data: []byte(`{"a":"<b>"}`)})
	if err != nil {
		t.Fatal(err)
	}
	valid(t, data)
	want := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://spdx.dev/Document","subject":[{"name":"_","digest":{"sha256":"` +
		digest.FromString("x").Encoded() + `"}}],"predicate":{"a":"<b>"}}`
	if string(data) != want {
		t.Errorf("got %s", data)
	}
}

func TestStatementIsBounded(t *testing.T) {
	t.Parallel()
	_, err := attest.Statement(attest.Subjects{}, attest.Predicate{Type: "t", Data: make([]byte, attest.MaxStatement+1)})
	if err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("got %v", err)
	}
}

// TestManifest compares with the manifest that BuildKit made of one statement.
func TestManifest(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/buildkit.json")
	if err != nil {
		t.Fatal(err)
	}
	target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:fd64b0a33924bab7d15d37b8f7e3ae542045bc4356c8f06cb1a9ffb789f3252d", Size: 663}
	m, err := attest.NewManifest(target, []string{attest.ProvenanceType}, [][]byte{data})
	if err != nil {
		t.Fatal(err)
	}
	want := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: "sha256:3fe6268d2cc9438817b00451886aff45c5c2ec44352a926350e95776c4db9251", Size: 836,
		Annotations: map[string]string{"vnd.docker.reference.digest": target.Digest.String(), "vnd.docker.reference.type": "attestation-manifest"},
		Platform:    &ocispec.Platform{Architecture: "unknown", OS: "unknown"},
	}
	if diff := cmp.Diff(want, m.Descriptor); diff != "" {
		t.Errorf("%s\n%s", diff, m.Data)
	}
}
