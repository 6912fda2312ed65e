package cli

import (
	goflag "flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

var update = goflag.Bool("update", false, "rewrite golden files")

// kanikos are the flags or variables of one of kaniko's forks: the fields of each line of a file, by the first.
func kanikos(t *testing.T, file string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "kaniko", file))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "#" {
			out[fields[0]] = fields
		}
	}
	return out
}

// shape is a flag as a line of testdata/kaniko has it.
func shape(f flag) []string {
	names := map[kind]string{
		boolKind: "bool", stringKind: "string", intKind: "int", durationKind: "duration", multiKind: "multi", kvKind: "key=value", multimapKind: "multimap",
	}
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	return []string{f.name, or(f.short), names[f.kind], or(f.def)}
}

// TestEveryFlagOfKanikoIsKnown compares the table with the flags of each fork: spelling, short form, type and default. What is
// different on purpose is named here.
func TestEveryFlagOfKanikoIsKnown(t *testing.T) {
	t.Parallel()
	different := map[string]string{
		"kaniko-dir": "in G and C /kaniko, which is the first place that is tried here",
		"target":     "in G and C a string: the last one given counts, here the first",
		"cache-ttl":  "336h, spelled as Go prints it",
	}
	for _, fork := range []string{"G", "C", "O"} {
		want := kanikos(t, "executor-"+fork+".txt")
		got := map[string][]string{}
		for _, f := range flags() {
			if strings.Contains(f.forks, fork) {
				got[f.name] = shape(f)
			}
		}
		for name := range different {
			if want[name] == nil || got[name] == nil {
				t.Errorf("fork %s: --%s is missing", fork, name)
			}
			delete(want, name)
			delete(got, name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("flags of fork %s (-) and ours (+):\n%s", fork, diff)
		}
	}
}

// TestEveryFlagOfKanikoIsTaken gives each flag of each fork a value that it takes, in every form that it can be given in.
func TestEveryFlagOfKanikoIsTaken(t *testing.T) {
	t.Parallel()
	values := map[string]string{
		"string": "x", "multi": "a=b", "key=value": "a=b", "multimap": "a=b;c=d", "int": "3", "duration": "6h", "bool": "true",
	}
	special := map[string]string{
		"verbosity": "debug", "log-format": "json", "compression": "zstd", "image-format": "oci", "snapshot-mode": "redo", "snapshotMode": "time",
		"custom-platform": "linux/amd64", "customPlatform": "linux/amd64", "credential-helpers": "env", "secret": "id=a,env=A", "annotation": "a=b",
	}
	for _, fork := range []string{"G", "C", "O"} {
		for name, fields := range kanikos(t, "executor-"+fork+".txt") {
			v := values[fields[2]]
			if s, ok := special[name]; ok {
				v = s
			}
			forms := [][]string{{"--" + name + "=" + v}}
			if fields[2] == "bool" {
				forms = append(forms, []string{"--" + name})
			} else {
				forms = append(forms, []string{"--" + name, v})
			}
			if fields[1] != "-" {
				forms = append(forms, []string{"-" + fields[1], v}, []string{"-" + fields[1] + v})
			}
			for _, form := range forms {
				vs := newValues()
				set := pflag.NewFlagSet("executor", pflag.ContinueOnError)
				vs.register(set)
				if err := set.Parse(form); err != nil {
					t.Errorf("fork %s: %q: %v", fork, form, err)
				}
			}
		}
	}
}

func TestEveryVariableOfKanikoIsKnown(t *testing.T) {
	t.Parallel()
	for _, fork := range []string{"G", "C", "O"} {
		var want, got []string
		for name := range kanikos(t, "variables-"+fork+".txt") {
			want = append(want, name)
		}
		for _, v := range environment() {
			if strings.Contains(v.forks, fork) {
				got = append(got, v.name)
			}
			if (v.help == "") == (v.why == "") {
				t.Errorf("%s works, or has no effect for a reason", v.name)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("variables of fork %s (-) and ours (+):\n%s", fork, diff)
		}
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

// TestMigration holds the part of docs/kaniko.md that is made from the tables.
func TestMigration(t *testing.T) {
	t.Parallel()
	path := filepath.Join("..", "..", "docs", "kaniko.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const mark = "do not edit. -->\n"
	written, made, ok := strings.Cut(string(data), mark)
	if !ok {
		t.Fatalf("%s has no %q", path, mark)
	}
	if *update {
		made = migration()
		if err := os.WriteFile(path, []byte(written+mark+made), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(migration(), made); diff != "" {
		t.Errorf("docs/kaniko.md is not the tables; run with -update (-want +got):\n%s", diff)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := pflag.NewFlagSet("", pflag.ContinueOnError)
	newValues().register(known)
	for name, want := range map[string]string{
		"dockrfile": "dockerfile", "destinations": "destination", "build-args": "build-arg", "zzzzzzzz": "", "desti": "destination",
	} {
		if got := nearest(known, name); got != want {
			t.Errorf("nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

// The bucket takes the place of a context that is not a directory, as in kaniko.
func TestBucketFlag(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--bucket b":                       "gs://b",
		"-b b/context.tgz":                 "gs://b/context.tgz",
		"--bucket s3://b/k":                "s3://b/k",
		"--bucket b --context gs://other":  "gs://b",
		"--bucket b --context=":            "gs://b",
		"--bucket b --context /here":       "/here",
		"--context gs://other":             "gs://other",
		"":                                 "/workspace/",
		"--bucket b --context dir:///here": "gs://b",
	} {
		vs := newValues()
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		vs.register(set)
		if err := set.Parse(strings.Fields(line)); err != nil {
			t.Fatal(err)
		}
		if got := contextPlace(vs); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}
