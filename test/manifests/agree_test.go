package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// expand puts the ConfigMap's values where a kustomized pod refers to them, as the kubelet does, so that it can be compared with
// one that has them in its arguments.
func expand(spec map[string]any, config object) map[string]any {
	container := spec["containers"].([]any)[0].(map[string]any)
	data, _ := config.at("data").(map[string]any)
	args, _ := container["args"].([]any)
	for i, a := range args {
		text := a.(string)
		for k, v := range data {
			text = strings.ReplaceAll(text, "$("+k+")", v.(string))
		}
		args[i] = text
	}
	var rest []any
	from, _ := container["envFrom"].([]any)
	for _, e := range from {
		if object(e.(map[string]any)).at("configMapRef") == nil {
			rest = append(rest, e)
		}
	}
	delete(container, "envFrom")
	if len(rest) > 0 {
		container["envFrom"] = rest
	}
	return spec
}

// TestChartAgreesWithKustomize renders the same builds both ways: but for names, the pods and what is said of their Jobs are the same.
func TestChartAgreesWithKustomize(t *testing.T) {
	t.Parallel()
	const git = "contextSecret: context, context: \"https://git.example.com/team/app.git#main\", destinations: [\"registry.example.com/team/app:main\"]"
	for _, c := range []struct{ dir, values string }{
		{"overlays/git", "build: {enabled: true, " + git + "}"},
		{"overlays/volume", "build: {enabled: true, contextClaim: source, destinations: [\"registry.example.com/team/app:latest\"]}"},
		{"overlays/cached", "cache: {enabled: true}\nbases: {enabled: true}\nbuild: {enabled: true, " + git + "}"},
		{"../../test/manifests/testdata/openshift", "openshift: true\nbuild: {enabled: true, " + git + "}"},
	} {
		t.Run(filepath.Base(c.dir), func(t *testing.T) {
			t.Parallel()
			from := objects(t, kustomize(t, c.dir))
			want, got := one(t, from, "Job"), one(t, objects(t, mustHelm(t, c.values)), "Job")
			expand(want.podSpec(), one(t, from, "ConfigMap"))
			for _, o := range []object{want, got} {
				delete(o, "metadata")
				delete(o.at("spec", "template").(map[string]any), "metadata")
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("kustomize (-), the chart (+):\n%s", diff)
			}
		})
	}
}

// TestSetupAgrees compares what is installed once.
func TestSetupAgrees(t *testing.T) {
	t.Parallel()
	from := objects(t, kustomize(t, "setup/submit")+"---\n"+kustomize(t, "setup/cache")+"---\n"+kustomize(t, "setup/warmer"))
	to := objects(t, mustHelm(t, "cache: {enabled: true}\nbases: {enabled: true, images: [\"debian:bookworm\"]}"))
	for kind, want := range from {
		byName := map[any]object{}
		for _, o := range to[kind] {
			byName[o.at("metadata", "name")] = o
		}
		for _, o := range want {
			got := byName[o.at("metadata", "name")]
			for _, one := range []object{o, got} {
				if one == nil {
					t.Fatalf("the chart lacks the %s %s", kind, o.at("metadata", "name"))
				}
				delete(one, "metadata")
				if template, ok := one.at("spec", "jobTemplate", "spec", "template").(map[string]any); ok {
					delete(template, "metadata")
				}
				if subject, ok := one.at("subjects", 0).(map[string]any); ok {
					delete(subject, "namespace") // kustomize puts it in when it knows one
				}
			}
			if diff := cmp.Diff(o, got); diff != "" {
				t.Errorf("%s: kustomize (-), the chart (+):\n%s", kind, diff)
			}
		}
		if len(want) != len(to[kind]) {
			t.Errorf("%d objects of kind %s, the chart has %d", len(want), kind, len(to[kind]))
		}
	}
}

// TestRulesAreDocumented compares the Roles with the page that people copy them from: first those that submit needs, then the one
// that --context-stdin does.
func TestRulesAreDocumented(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for line := range strings.Lines(read(t, filepath.Join(moduleRoot(t), "docs/submit.md"))) {
		if rule, ok := strings.CutPrefix(line, "    - {apiGroups:"); ok {
			text.WriteString("- {apiGroups:" + rule)
		}
	}
	var documented any
	if err := yaml.Unmarshal([]byte(text.String()), &documented); err != nil {
		t.Fatal(err)
	}
	for where, manifest := range map[string]string{
		"deploy/kubernetes/components/context-stdin": kustomize(t, "../../test/manifests/testdata/stdin"),
		"the chart": mustHelm(t, "submit: {contextStdin: true}"),
	} {
		if diff := cmp.Diff(one(t, objects(t, manifest), "Role").at("rules"), documented); diff != "" {
			t.Errorf("%s (-), docs/submit.md (+):\n%s", where, diff)
		}
	}
}

// TestNoTokens finds pods that would get a token of their account, which no build needs.
func TestNoTokens(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"overlays/git", "overlays/s3", "overlays/volume", "overlays/pod", "overlays/cached", "setup/warmer", "../../test/manifests/testdata/openshift"} {
		for kind, all := range objects(t, kustomize(t, dir)) {
			for _, o := range all {
				if spec := o.podSpec(); spec != nil && spec["automountServiceAccountToken"] != false {
					t.Errorf("%s: the %s gets a token", dir, kind)
				}
			}
		}
	}
}
