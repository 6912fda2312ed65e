package manifests

import (
	"encoding/json"
	goflag "flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

var update = goflag.Bool("update", false, "rewrite the goldens")

// TestChart renders testdata/*.values.yaml; what comes out, the notes for the user included, is in *.golden.
func TestChart(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.values.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no values in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			manifest, notes, err := helm(t, read(t, file))
			if err != nil {
				t.Fatal(err)
			}
			objects(t, manifest)
			got := manifest + "--- NOTES.txt\n" + notes
			golden := strings.TrimSuffix(file, ".values.yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(read(t, golden), got); diff != "" {
				t.Errorf("%s (-), rendered (+); -update rewrites it:\n%s", golden, diff)
			}
		})
	}
}

// TestChartRefuses gives values that nobody can have meant.
func TestChartRefuses(t *testing.T) {
	t.Parallel()
	const build = "build: {enabled: true, context: s3://b/c.tar, destinations: [r.example.com/a:1]"
	for values, want := range map[string]string{
		"buidl: {}":                                      "additional properties 'buidl' not allowed",
		"build: {destination: a}":                        "additional properties 'destination' not allowed",
		"build: {enabled: yes please}":                   "/build/enabled",
		"build: {enabled: true, context: a}":             "/build/destinations",
		"build: {enabled: true, destinations: [a/b:1]}":  "build.context or build.contextClaim",
		build + ", suspend: true}":                       "build.suspend: only a build with a schedule",
		build + ", timeoutSeconds: 0}":                   "/build/timeoutSeconds",
		build + ", args: --cache}":                       "/build/args",
		build + ", resources: {limit: {}}}":              "additional properties 'limit' not allowed",
		build + ", resources: {limits: {memory: 2GiB}}}": "/build/resources/limits/memory",
		build + ", contextSecret: My_Secret}":            "/build/contextSecret",
		"cache: {size: 20 GB}":                           "/cache/size",
		"cache: {accessModes: []}":                       "/cache/accessModes",
		"cache: {accessModes: [ReadOnlyMany]}":           "/cache/accessModes",
		"cache: {limit: 20Gi}":                           "/cache/limit",
		"openshift: \"true\"":                            "/openshift",
		"image: {executor: \"\"}":                        "/image/executor",
		"image: {repository: a}":                         "additional properties 'repository' not allowed",
		"pod: {securityContext: {}}":                     "additional properties 'securityContext' not allowed",
		"pod: {env: [{HTTPS_PROXY: a}]}":                 "/pod/env/0",
		"pod: {tolerations: [{operator: Any}]}":          "/pod/tolerations/0/operator",
		"pod: {nodeSelector: {a: 1}}":                    "/pod/nodeSelector/a",
		"submit: {subjects: [ann]}":                      "/submit/subjects/0",
		"bases: {images: debian}":                        "/bases/images",
		"bases: {schedule: \"\"}":                        "/bases/schedule",
	} {
		if _, _, err := helm(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", values, err, want)
		}
	}
}

// TestSchemaHasAllValues compares the keys of values.yaml with the schema's: what a user may set has a default and a comment.
func TestSchemaHasAllValues(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(moduleRoot(t), "deploy/helm/hako")
	type node struct {
		Properties           map[string]node
		AdditionalProperties any
	}
	var schema node
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "values.schema.json"))), &schema); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(dir, "values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // Helm's own, of charts that hold this one
	var compare func(path string, s node, v map[string]any)
	compare = func(path string, s node, v map[string]any) {
		if s.AdditionalProperties != false {
			t.Errorf("%s: the schema takes what nobody reads", path)
		}
		if diff := cmp.Diff(slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(v))); diff != "" {
			t.Errorf("%s: in the schema (-), in values.yaml (+):\n%s", path, diff)
		}
		for key, below := range s.Properties {
			if m, ok := v[key].(map[string]any); ok && len(below.Properties) > 0 {
				compare(path+"/"+key, below, m)
			}
		}
	}
	compare("", schema, values)
}
