package plan_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/tools/txtar"

	"hako/internal/diag"
	"hako/internal/dockerfile"
	"hako/internal/image"
	"hako/internal/plan"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata/plan")

// TestGolden plans each testdata/plan/*.txtar: Dockerfile, and options.json if there is one. It expects plan.txt and
// config.json, or error.txt. Configurations and histories were compared with BuildKit v0.34.2's front end.
func TestGolden(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	images := readImages(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			golden(t, file, images)
		})
	}
}

func golden(t *testing.T, file string, images catalog) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in := &txtar.Archive{Comment: ar.Comment}
	var text, options []byte
	for _, f := range ar.Files {
		switch f.Name {
		case "Dockerfile":
			text = f.Data
		case "options.json":
			options = f.Data
		default:
			continue
		}
		in.Files = append(in.Files, f)
	}
	out := &txtar.Archive{Comment: in.Comment, Files: append(in.Files, result(t, text, options, images)...)}
	if *update {
		if err := os.WriteFile(file, txtar.Format(out), 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(ar)), string(txtar.Format(out))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// result is what planning text yields, as files.
func result(t *testing.T, text, options []byte, images catalog) []txtar.File {
	opts, raw := readOptions(t, options)
	if raw {
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\\r"), []byte("\r")), []byte("<BOM>"), []byte("\uFEFF"))
		text = bytes.TrimSuffix(text, []byte("<NONL>\n"))
	}
	f, err := dockerfile.Parse("Dockerfile", text)
	var g *plan.Graph
	if err == nil {
		g, err = plan.Build(t.Context(), f, opts, images)
	}
	if err != nil {
		if !errors.As(err, new(*diag.Error)) {
			t.Errorf("%v is no diag.Error", err)
		}
		return []txtar.File{{Name: "error.txt", Data: []byte(diag.Format(err) + "\n")}}
	}
	checkGraph(t, g)
	config, err := json.MarshalIndent(g.Target.Config, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return []txtar.File{{Name: "plan.txt", Data: []byte(g.String())}, {Name: "config.json", Data: append(config, '\n')}}
}

// checkGraph tests what must hold for every graph.
func checkGraph(t *testing.T, g *plan.Graph) {
	known := map[*plan.Stage]bool{}
	for _, s := range g.Stages {
		if s.Base.Stage != nil && !known[s.Base.Stage] {
			t.Errorf("stage %s comes before its base", s.ID())
		}
		for i, step := range s.Steps {
			h := s.Config.History[step.History]
			if h.EmptyLayer != (step.Op == nil) {
				t.Errorf("step %s: history entry %q has empty_layer=%v", step.ID, h.CreatedBy, h.EmptyLayer)
			}
			if want := len(s.Config.History) - len(s.Steps) + i; step.History != want {
				t.Errorf("step %s: history index %d, want %d", step.ID, step.History, want)
			}
			if c, ok := step.Op.(*plan.Copy); ok && c.From.Stage != nil && !known[c.From.Stage] {
				t.Errorf("step %s: its source comes later", step.ID)
			}
			if step.Span.Start == 0 {
				t.Errorf("step %s has no place in the file", step.ID)
			}
		}
		known[s] = true
	}
	if !known[g.Target] {
		t.Error("the target is not in the graph")
	}
}

type optionsFile struct {
	plan.Options
	PlatformName, BuildPlatformName string
	// Raw replaces "\r", "<BOM>" and a "<NONL>" at the end of the Dockerfile.
	Raw bool
}

func readOptions(t *testing.T, data []byte) (plan.Options, bool) {
	var o optionsFile
	if len(data) > 0 {
		if err := json.Unmarshal(data, &o); err != nil {
			t.Fatal(err)
		}
	}
	o.BuildPlatform = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	var err error
	if o.PlatformName != "" {
		if o.Platform, err = image.ParsePlatform(o.PlatformName); err != nil {
			t.Fatal(err)
		}
	}
	if o.BuildPlatformName != "" {
		if o.BuildPlatform, err = image.ParsePlatform(o.BuildPlatformName); err != nil {
			t.Fatal(err)
		}
	}
	return o.Options, o.Raw
}

// catalog is a Resolver that knows a few images.
type catalog map[string]json.RawMessage

func readImages(t testing.TB) catalog {
	data, err := os.ReadFile("testdata/images.json")
	if err != nil {
		t.Fatal(err)
	}
	var c catalog
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c catalog) ResolveLayout(_ context.Context, ref string, _ ocispec.Platform) (*plan.ImageRef, error) {
	return c.Resolve(context.Background(), "oci-layout://"+ref, ocispec.Platform{})
}

func (c catalog) Resolve(_ context.Context, name string, _ ocispec.Platform) (*plan.ImageRef, error) {
	data, ok := c[name]
	if !ok {
		return nil, errors.New("not found")
	}
	config, err := image.DecodeConfig(data)
	if err != nil {
		return nil, err
	}
	return &plan.ImageRef{Name: name, Ref: name, Config: config, Platform: config.Platform}, nil
}
