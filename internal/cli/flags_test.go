package cli

import (
	goflag "flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = goflag.Bool("update", false, "rewrite golden files")

// kanikoFlagNames are the flags of kaniko's executor in any of its forks, hidden and old ones included.
const kanikoFlagNames = `annotation azure-container-registry-config bucket build-arg cache cache-copy-layers cache-dir cache-repo
cache-run-layers cache-ttl cleanup compressed-caching compression compression-level context context-sub-path credential-helpers
custom-platform customPlatform destination digest-file dockerfile dryrun force force-build-metadata git ignore-path ignore-var-run
image-download-retry image-format image-fs-extract-retry image-name-tag-with-digest-file image-name-with-digest-file insecure
insecure-pull insecure-registry kaniko-dir label log-format log-timestamp materialize no-push no-push-cache oci-layout-path
pre-cleanup preserve-context push-ignore-immutable-tag-errors push-retry registry-certificate registry-client-cert registry-map
registry-mirror reproducible secret single-snapshot skip-default-registry-fallback skip-push-permission-check skip-tls-verify
skip-tls-verify-pull skip-tls-verify-registry skip-unused-stages snapshot-mode snapshotMode tar-path tarPath target use-new-run
verbosity whitelist-var-run`

func TestEveryFlagOfKanikoIsKnown(t *testing.T) {
	t.Parallel()
	var got []string
	for _, f := range flags() {
		if f.forks != "D" && f.forks != "H" {
			got = append(got, f.name)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(strings.Fields(kanikoFlagNames), got); diff != "" {
		t.Errorf("kaniko's flags (-) and ours (+):\n%s", diff)
	}
}

func TestTableIsSound(t *testing.T) {
	t.Parallel()
	byName := map[string]bool{}
	for _, f := range flags() {
		if byName[f.name] {
			t.Errorf("--%s is there twice", f.name)
		}
		byName[f.name] = true
		if f.help == "" || f.status == 0 || f.kind == 0 || f.forks == "" {
			t.Errorf("--%s is incomplete: %+v", f.name, f)
		}
		if (f.status == noEffect) != (f.why != "") {
			t.Errorf("--%s: a reason belongs to flags without effect, and only to them", f.name)
		}
		if f.alias != "" && !byName[f.alias] {
			t.Errorf("--%s stands for the unknown --%s", f.name, f.alias)
		}
		v := &value{flag: f}
		if f.def != "" && v.Set(f.def) != nil {
			t.Errorf("--%s does not take its own default", f.name)
		}
		if !(&value{flag: f}).isDefault() {
			t.Errorf("--%s is not at its default when not given", f.name)
		}
	}
}

func TestEveryUsedFlagIsRead(t *testing.T) {
	t.Parallel()
	_, vs, err := parse(t, nil, []string{"--no-push"})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"verbosity", "log-format", "log-timestamp", "trace", "check", "call"} {
		vs.read[name] = true // read by build, see the scripts
	}
	for _, f := range flags() {
		if f.status == used && f.alias == "" && !vs.read[f.name] {
			t.Errorf("--%s is said to work, but nothing reads it", f.name)
		}
		if f.status != used && vs.read[f.name] {
			t.Errorf("--%s is read, but said not to work", f.name)
		}
	}
}

func TestReference(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "flags.md")
	if *update {
		if err := os.WriteFile(path, []byte(reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(reference(), string(got)); diff != "" {
		t.Errorf("docs/flags.md is not the flag table; run with -update (-want +got):\n%s", diff)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"dockrfile": "dockerfile", "destinations": "destination", "build-args": "build-arg", "zzzzzzzz": ""} {
		if got := nearest(name); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
