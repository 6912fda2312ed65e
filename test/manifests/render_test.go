package manifests

import (
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"hako/test/lab"
)

// object is one of Kubernetes' objects.
type object map[string]any

// at is what a path of keys and of indexes into lists leads to; nil if there is nothing.
func (o object) at(path ...any) any {
	var v any = map[string]any(o)
	for _, key := range path {
		switch key := key.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[key]
		case int:
			l, _ := v.([]any)
			if key >= len(l) {
				return nil
			}
			v = l[key]
		}
	}
	return v
}

// podSpec is that of a Job, a CronJob or a Pod.
func (o object) podSpec() map[string]any {
	for _, path := range [][]any{{"spec", "template", "spec"}, {"spec", "jobTemplate", "spec", "template", "spec"}, {"spec"}} {
		if spec, ok := o.at(path...).(map[string]any); ok && spec["containers"] != nil {
			return spec
		}
	}
	return nil
}

// objects are those of a manifest, by kind.
func objects(t *testing.T, manifest string) map[string][]object {
	t.Helper()
	out := map[string][]object{}
	for d := yaml.NewDecoder(strings.NewReader(manifest)); ; {
		var o map[string]any // not object: maps within would be objects, too
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, manifest)
		}
		if kind, ok := o["kind"].(string); ok {
			out[kind] = append(out[kind], o)
		}
	}
}

// one is the only object of a kind.
func one(t *testing.T, all map[string][]object, kind string) object {
	t.Helper()
	if len(all[kind]) != 1 {
		t.Fatalf("%d objects of kind %s, want one", len(all[kind]), kind)
	}
	return all[kind][0]
}

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := lab.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// kustomize is what kubectl kustomize prints for a directory below deploy/kubernetes.
func kustomize(t *testing.T, dir string) string {
	t.Helper()
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(moduleRoot(t), "deploy/kubernetes", dir))
	if err != nil {
		t.Fatal(err)
	}
	text, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// helm renders the chart with values as the release hako in the namespace builds. Values that the chart refuses are an error.
func helm(t *testing.T, values string) (manifest, notes string, err error) {
	t.Helper()
	c, err := loader.LoadDir(filepath.Join(moduleRoot(t), "deploy/helm/hako"))
	if err != nil {
		t.Fatal(err)
	}
	given, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		t.Fatal(err)
	}
	options := chartutil.ReleaseOptions{Name: "hako", Namespace: "builds", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, given, options, chartutil.DefaultCapabilities)
	if err != nil {
		return "", "", err
	}
	files, err := engine.Engine{Strict: true}.Render(c, all)
	if err != nil {
		return "", "", err
	}
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch text := files[name]; {
		case strings.HasSuffix(name, "NOTES.txt"):
			notes = text
		case strings.TrimSpace(text) != "":
			out.WriteString("---\n" + strings.TrimPrefix(strings.TrimSpace(text), "---\n") + "\n")
		}
	}
	return out.String(), notes, nil
}

// mustHelm is helm with values that the chart takes.
func mustHelm(t *testing.T, values string) string {
	t.Helper()
	manifest, _, err := helm(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
