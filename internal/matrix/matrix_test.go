package matrix_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hako/internal/diag"
	"hako/internal/matrix"
)

const example = `
variables: {TAG: latest, REG: reg.example}
defaults:
  cache-repo: ${REG}/cache
  args: {A: "1", B: two}
  platforms: [linux/amd64, linux/arm64]
builds:
  app:
    context: app
    contexts: {base: "target:base", tools: docker-image://tools}
    tags: ["${REG}/app:${TAG}"]
    args: {B: "$${x} $y"}
    flags: [--sbom=true]
  base:
    tags: ${REG}/base
    platforms: linux/amd64
  test:
    matrix: {os: [a, b], v: [1, 2]}
    name: test-${v}-${os}
    args: ["OS=${os}"]
    tags: "t/${os}:${v}"
    depends-on: app
groups:
  default: [app, test]
`

func parse(t *testing.T, text string) *matrix.File {
	t.Helper()
	f, err := matrix.Parse("builds.yaml", []byte(text), func(k string) string { return map[string]string{"TAG": "7"}[k] })
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	return f
}

func TestParse(t *testing.T) {
	t.Parallel()
	builds, err := parse(t, example).Select([]string{"app", "test-2-a"})
	if err != nil {
		t.Fatal(err)
	}
	want := []matrix.Build{
		{Name: "base", Tags: []string{"reg.example/base"}, Flags: []string{
			"--context=.", "--build-arg=A=1", "--build-arg=B=two", "--platform=linux/amd64", "--destination=reg.example/base", "--cache-repo=reg.example/cache",
		}},
		{Name: "app", Tags: []string{"reg.example/app:7"}, Needs: []string{"base"}, From: []matrix.From{{Context: "base", Build: "base"}}, Flags: []string{
			"--context=app", "--build-arg=A=1", "--build-arg=B=${x} $y", "--platform=linux/amd64", "--platform=linux/arm64",
			"--destination=reg.example/app:7", "--build-context=tools=docker-image://tools", "--cache-repo=reg.example/cache", "--sbom=true",
		}},
		{Name: "test-2-a", Tags: []string{"t/a:2"}, Needs: []string{"app"}, Flags: []string{
			"--context=.", "--build-arg=A=1", "--build-arg=B=two", "--build-arg=OS=a", "--platform=linux/amd64", "--platform=linux/arm64",
			"--destination=t/a:2", "--cache-repo=reg.example/cache",
		}},
	}
	if d := cmp.Diff(want, builds, cmpopts.IgnoreFields(matrix.Build{}, "Span")); d != "" {
		t.Error(d)
	}
	all, err := parse(t, example).Select(nil)
	if err != nil || len(all) != 6 {
		t.Errorf("the default group has %d builds, %v", len(all), err)
	}
	if _, err := parse(t, example).Select([]string{"tset"}); err == nil || !strings.Contains(diag.Format(err), "Did you mean test?") {
		t.Error(err)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               "it is empty",
		"a: [":                           "read builds.yaml",
		"[]":                             "builds.yaml:1: this has to be a mapping",
		"builds: {a: {contxt: x}}":       "builds.yaml:1: unknown field \"contxt\"",
		"builds:\n a: {}\n a: {}":        "builds.yaml:3: \"a\" comes twice",
		"defaults: {}":                   "there are no builds",
		"build: {}":                      "unknown field \"build\"",
		"builds: {a: {target: [x]}}":     "this has to be a text",
		"builds: {a: {target: null}}":    "this has to be a text",
		"builds: {a: {tags: {a: b}}}":    "this has to be a list",
		"builds: {a: {args: [x]}}":       "is not KEY=VALUE",
		"builds: {a: {cache: maybe}}":    "is not a bool",
		"builds: {a: {flags: [x]}}":      "is no flag",
		"builds: {a: {target: '${x}'}}":  "there is no variable \"x\"",
		"builds: {a: {target: '${x'}}":   "has no end",
		"builds: {a b: {}}":              "cannot be the name of a build",
		"builds: {a: {matrix: {x: []}}}": "the matrix has 0 builds",
		"builds: {a: {matrix: {x: [1, 2]}, name: a}}":      "there are two builds \"a\"",
		"builds: {a: {depends-on: b}}":                     "build a needs \"b\", which is not there",
		"builds: {a: {contexts: {x: 'target:b'}}, b: {}}":  "which has no tags",
		"builds: {a: {contexts: {x: 'target:b'}}}":         "target:b, which is not there",
		"builds: {a: {depends-on: b}, b: {depends-on: a}}": "builds need each other: a → b → a",
		"builds: {a: {depends-on: a}}":                     "builds need each other: a → a",
		"builds: {a: {}}\ngroups: {a: []}":                 "a build has that name",
		"builds: {a: {}}\ngroups: {g: [b]}":                "builds.yaml:2: group \"g\": there is no build or group \"b\"",
		"x: &x {}\nbuilds: {a: *x}":                        "unknown field \"x\"",
		"builds: {a: &x {}, b: *x}":                        "aliases are not supported",
		"builds: {a: {tags: [*x]}}":                        "unknown anchor",
	} {
		_, err := matrix.Parse("builds.yaml", []byte(text), func(string) string { return "" })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("builds: {a: {matrix: {x: [1]}, depends-on: a}}\ngroups: {g: [h], h: [g, a]}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := matrix.Parse("f", data, func(string) string { return "" })
		if err != nil {
			return
		}
		builds, err := file.Select(nil)
		if err != nil {
			t.Fatalf("the default cannot be selected: %v", err)
		}
		done := map[string]bool{}
		for _, b := range builds {
			for _, n := range b.Needs {
				if !done[n] {
					t.Fatalf("%s comes before %s", b.Name, n)
				}
			}
			done[b.Name] = true
		}
	})
}

// chain are n builds, each of which needs the one before.
func chain(n int) []matrix.Build {
	var out []matrix.Build
	for i := range n {
		b := matrix.Build{Name: fmt.Sprint(i)}
		if i > 0 {
			b.Needs = []string{fmt.Sprint(i - 1)}
		}
		out = append(out, b)
	}
	return out
}

func states(results []matrix.Result) string {
	var out []string
	for _, r := range results {
		out = append(out, r.Name+":"+string(r.State))
	}
	return strings.Join(out, " ")
}

func TestRunGivesDigestsOfWhatIsNeeded(t *testing.T) {
	t.Parallel()
	got := matrix.Run(t.Context(), chain(3), matrix.Options{Now: time.Now, Run: func(_ context.Context, b matrix.Build, digest func(string) string) (string, error) {
		if len(b.Needs) == 0 {
			return "d0", nil
		}
		return digest(b.Needs[0]) + b.Name, nil
	}})
	if states(got) != "0:done 1:done 2:done" || got[2].Digest != "d012" {
		t.Errorf("%+v", got)
	}
}

func TestRunEachBuildOnceAndNoMoreThanAllowed(t *testing.T) {
	t.Parallel()
	var builds []matrix.Build
	for i := range 200 {
		builds = append(builds, matrix.Build{Name: fmt.Sprint(i)})
	}
	var mu sync.Mutex
	running, most, calls := 0, 0, map[string]int{}
	matrix.Run(t.Context(), builds, matrix.Options{Concurrency: 7, Now: time.Now, Run: func(_ context.Context, b matrix.Build, _ func(string) string) (string, error) {
		mu.Lock()
		running++
		most = max(most, running)
		calls[b.Name]++
		mu.Unlock()
		defer func() {
			mu.Lock()
			running--
			mu.Unlock()
		}()
		return "d", nil
	}})
	if most > 7 || len(calls) != 200 {
		t.Errorf("%d at once, %d builds", most, len(calls))
	}
	for name, n := range calls {
		if n != 1 {
			t.Errorf("%s ran %d times", name, n)
		}
	}
}

func TestRunAfterAFailure(t *testing.T) {
	t.Parallel()
	builds := append(chain(3), matrix.Build{Name: "x"}, matrix.Build{Name: "y", Needs: []string{"x"}})
	for _, keep := range []bool{true, false} {
		failed := make(chan struct{})
		got := matrix.Run(t.Context(), builds, matrix.Options{KeepGoing: keep, Now: time.Now, Run: func(ctx context.Context, b matrix.Build, _ func(string) string) (string, error) {
			if b.Name == "0" {
				close(failed)
				return "", errors.New("broken")
			}
			<-failed
			if !keep && b.Name == "x" {
				<-ctx.Done()
				return "", context.Cause(ctx)
			}
			return "d", nil
		}})
		want := "0:failed 1:skipped 2:skipped x:done y:done"
		if !keep {
			want = "0:failed 1:skipped 2:skipped x:skipped y:skipped"
		}
		if states(got) != want {
			t.Errorf("keep going %v: %s", keep, states(got))
		}
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	got := matrix.Run(ctx, chain(2), matrix.Options{Now: time.Now, KeepGoing: true, Run: func(ctx context.Context, _ matrix.Build, _ func(string) string) (string, error) {
		cancel(stop)
		return "", context.Cause(ctx)
	}})
	if states(got) != "0:skipped 1:skipped" || !errors.Is(got[1].Err, stop) {
		t.Errorf("%+v", got)
	}
}

// TestManyNeeds reads files in which every build of a group needs every build of another.
func TestManyNeeds(t *testing.T) {
	t.Parallel()
	text := func(n int) string {
		var numbers []string
		for i := range n {
			numbers = append(numbers, fmt.Sprint(i))
		}
		list := strings.Join(numbers, ", ")
		return fmt.Sprintf("builds:\n a: {matrix: {n: [%s]}}\n b: {matrix: {n: [%s]}, depends-on: a}\n", list, list)
	}
	builds, err := parse(t, text(900)).Select([]string{"b-0"})
	if err != nil || len(builds) != 901 || len(builds[900].Needs) != 900 {
		t.Errorf("%d builds, %v", len(builds), err)
	}
	_, err = matrix.Parse("builds.yaml", []byte(text(5000)), func(string) string { return "" })
	if err == nil || !strings.Contains(err.Error(), "need others more than") {
		t.Errorf("got %v", err)
	}
}
