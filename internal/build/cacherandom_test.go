package build_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/build"
)

// number is what a variable of the environment says, or otherwise a default.
func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// changesPerBuild is how many changes are made to each random build; each is a case.
const changesPerBuild = 4

// TestCacheIsAlwaysRight makes random Dockerfiles and contexts, changes one thing after the other, and compares what the cache
// gives with what a build without it makes. A build of the same, or with an unrelated change, is all from the cache.
// HAKO_CACHE_CASES is how many cases are tried.
func TestCacheIsAlwaysRight(t *testing.T) {
	t.Parallel()
	randomBuilds(t, number("HAKO_CACHE_CASES", 400), func(t *testing.T, seed int) *cacheGenerator { return newGenerator(t, seed) })
}

// TestCacheIsAlwaysRightWithRuns is TestCacheIsAlwaysRight for builds with RUN, in the engine of HAKO_CACHE_SANDBOX.
// HAKO_CACHE_RUN_CASES is how many cases are tried.
func TestCacheIsAlwaysRightWithRuns(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	compileStep(t, dir)
	program, err := os.ReadFile(filepath.Join(dir, "prog"))
	if err != nil {
		t.Fatal(err)
	}
	randomBuilds(t, number("HAKO_CACHE_RUN_CASES", 16), func(t *testing.T, seed int) *cacheGenerator {
		t.Helper()
		g := newGenerator(t, seed)
		g.runs = true
		g.request.Sandbox, g.request.Reproducible = os.Getenv("HAKO_CACHE_SANDBOX"), true // what RUN writes is as old as RUN
		g.file(t, "prog", string(program))
		if err := os.Chmod(filepath.Join(g.dir, "prog"), 0o755); err != nil {
			t.Fatal(err)
		}
		return g
	})
}

func randomBuilds(t *testing.T, cases int, start func(t *testing.T, seed int) *cacheGenerator) {
	t.Helper()
	first := number("HAKO_CACHE_SEED", 0)
	for i := range (cases + changesPerBuild) / (changesPerBuild + 1) {
		seed := first + i
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			g := start(t, seed)
			g.start(t)
			g.compare(t, "first")
			for i := range changesPerBuild {
				g.compare(t, fmt.Sprintf("change %d, %s", i, g.change(t)))
			}
		})
	}
}

// cacheGenerator makes random builds.
type cacheGenerator struct {
	*cacheBench
	rng    *rand.Rand
	stages []cacheStage
	ignore []string
	named  string // the directory of a named context
	runs   bool
	count  int
}

type cacheStage struct {
	base  string
	lines []string
}

func newGenerator(t *testing.T, seed int) *cacheGenerator {
	t.Helper()
	g := &cacheGenerator{cacheBench: newCacheBench(t), rng: rand.New(rand.NewPCG(uint64(seed), 11)), named: t.TempDir()} //nolint:gosec // small
	g.request.NamedContexts = []build.KeyValue{{Key: "named", Value: g.named}}
	return g
}

// compare builds with the cache and without, and then again with an unrelated change.
func (g *cacheGenerator) compare(t *testing.T, what string) {
	t.Helper()
	with, log, err := g.try(t, true)
	without, _, plain := g.try(t, false)
	if (err == nil) != (plain == nil) || with != without {
		t.Errorf("%s: with the cache: %s, %v; without: %s, %v; from the cache: %v\n%s", what, with, err, without, plain, log.cached, g.text(t))
	}
	if len(log.warnings) > 0 {
		t.Errorf("%s: %v", what, log.warnings)
	}
	if err != nil {
		t.Logf("%s: %v", what, err)
		return
	}
	what += g.unrelated(t)
	again, log, err := g.try(t, true)
	if err != nil || again != with || len(log.ran) > 0 {
		t.Errorf("%s, once more: %v, %s instead of %s; ran %v\n%s", what, err, again, with, log.ran, g.text(t))
	}
}

// unrelated changes what nobody reads, or nothing.
func (g *cacheGenerator) unrelated(t *testing.T) string {
	t.Helper()
	switch g.rng.IntN(3) {
	case 0:
		g.count++
		g.file(t, "unrelated/file", strconv.Itoa(g.count))
		return ", an ignored file"
	case 1:
		g.request.Jobs = 1 + g.rng.IntN(3)
		return ", another number of jobs"
	}
	return ""
}

func (g *cacheGenerator) pick(of ...string) string { return of[g.rng.IntN(len(of))] }

func (g *cacheGenerator) name() string {
	return g.pick("a.txt", "b.txt", "c", "d/a.txt", "d/b", "d/e/f", "e/a.txt")
}

func (g *cacheGenerator) content() string {
	return g.pick("", "1", "2", "some text", "root:x:0:0::/:/\nme:x:1:2::/:/\n", "me:x:3:4::/:/\n")
}

func (g *cacheGenerator) start(t *testing.T) {
	t.Helper()
	for _, f := range []string{"a.txt", "c", "d/a.txt", "d/e/f", "e/a.txt", "passwd"} {
		g.file(t, f, g.content())
	}
	g.file(t, "passwd", "me:x:1:2::/:/\n")
	g.link(t)
	g.archive(t)
	g.inNamed(t)
	for i := range 1 + g.rng.IntN(3) {
		st := cacheStage{base: "scratch"}
		if i > 0 && g.rng.IntN(3) == 0 {
			st.base = fmt.Sprintf("s%d", g.rng.IntN(i))
		}
		for range 1 + g.rng.IntN(4) {
			st.lines = append(st.lines, g.line(i))
		}
		g.stages = append(g.stages, st)
	}
	g.write(t)
}

// link makes a symbolic link in the context, perhaps in place of another.
func (g *cacheGenerator) link(t *testing.T) string {
	t.Helper()
	name, target := g.pick("link", "d/link"), g.pick("a.txt", "d", "/etc/passwd", "nowhere", "../c")
	p := filepath.Join(g.dir, name)
	_ = os.Remove(p) // there may be none
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, p); err != nil {
		t.Fatal(err)
	}
	at := unix.NsecToTimespec(time.Unix(1_500_000_000, 0).UnixNano())
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	g.touch(t, filepath.ToSlash(filepath.Dir(name)), 1_500_000_000)
	return fmt.Sprintf("link %s to %s", name, target)
}

// archive writes an archive that ADD unpacks.
func (g *cacheGenerator) archive(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	text := g.content()
	for _, h := range []*tar.Header{
		{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 3}, {Name: "in/file", Typeflag: tar.TypeReg, Mode: 0o640, Size: int64(len(text))},
		{Name: "in/link", Typeflag: tar.TypeSymlink, Linkname: g.pick("file", "/x"), Mode: 0o777},
	} {
		h.ModTime = time.Unix(1_500_000_000, 0)
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	g.file(t, "x.tar", b.String())
	return "the archive"
}

// inNamed writes a file of the named context.
func (g *cacheGenerator) inNamed(t *testing.T) string {
	t.Helper()
	other := &cacheBench{dir: g.named}
	f := g.pick("a.txt", "d/b")
	other.file(t, f, g.content())
	return "file " + f + " of the named context"
}

// line is an instruction of stage number i.
func (g *cacheGenerator) line(i int) string {
	if g.runs && g.rng.IntN(3) == 0 {
		return g.run(i)
	}
	if i > 0 && g.rng.IntN(3) == 0 {
		return fmt.Sprintf("COPY %s--from=s%d %s /from%s/", g.pick("", "", "--link ", "--exclude=**/a.txt "), g.rng.IntN(i), g.pick("/*.txt*", "/d*", ".", "/x*", "/to*", "/l*"), g.pick("", "/x"))
	}
	switch g.rng.IntN(9) {
	case 0:
		return "WORKDIR " + g.pick("/w", "/d", "/w/x", "y", "/to/d", "$V")
	case 1:
		return g.pick("ENV A=1", "ENV A=2 B=$V", "LABEL l=1", "LABEL l=$V", "ARG V=/w", "USER 5", "USER me", "VOLUME /v", "EXPOSE 80", "CMD [\"x\"]",
			"ENTRYPOINT [\"y\"]", "STOPSIGNAL 9", "SHELL [\"/prog\"]", "HEALTHCHECK NONE", "MAINTAINER me")
	case 2:
		return fmt.Sprintf("%s <<%s /h%s\n%s $V\nE", g.pick("COPY", "ADD", "COPY --chmod=700", "COPY --link"), g.pick("E", "\"E\""), g.pick("1", "2", "/"), g.pick("one", "two"))
	case 3:
		return fmt.Sprintf("ADD %s%s %s", g.pick("", "--chown=1:2 ", "--link ", "--unpack=false ", "--exclude=in "), g.pick("x.tar", "x.tar a.txt", "*.t*"), g.pick("/u/", "/", "/to/"))
	case 4:
		return fmt.Sprintf("COPY --from=named %s%s /n%s/", g.pick("", "--chmod=u+x ", "--link "), g.pick(".", "*.txt*", "d*"), g.pick("", "/x"))
	case 5:
		return "ONBUILD " + g.copy()
	case 6:
		return "COPY passwd /etc/\nCOPY --chown=me " + g.pick("a*", ".", "d*") + " /mine/"
	}
	return g.copy()
}

func (g *cacheGenerator) copy() string {
	flags := g.pick("", "", "", "--chown=1:2 ", "--chmod=600 ", "--parents ", "--exclude=*.txt ", "--link ", "--link --chown=7 ")
	from := g.pick("*.txt*", "d*", ".", "[a-c]*", "e*", "l*", "passwd", "d/lin*", "d/e* d/a*")
	if flags == "--parents " && from == "." {
		from = "./d/./e"
	}
	return fmt.Sprintf("COPY %s%s %s", flags, from, g.pick("/", "/d/", "/to/", "$V/x/", "/etc/", "rel/"))
}

// run is a RUN that notes what it can see.
func (g *cacheGenerator) run(i int) string {
	mounts := g.pick("", "", "--mount=type=bind,source=d,target=/m ", "--mount=type=bind,target=/m ", "--mount=type=tmpfs,target=/m ", "--mount=type=bind,from=named,target=/m ",
		"--mount=type=cache,target=/m ", "--network=none ", "--mount=type=bind,source=a.txt,target=/m ")
	if i > 0 && g.rng.IntN(3) == 0 {
		mounts = fmt.Sprintf("--mount=type=bind,from=s%d,target=/m ", g.rng.IntN(i))
	}
	return fmt.Sprintf("RUN --mount=type=bind,source=prog,target=/prog %s[\"/prog\", \"note\", \"/r%s\", \"/to\", \"/d\", \"/from\", \"/m\", \"/h1\"]", mounts, g.pick("1", "2", "3"))
}

func (g *cacheGenerator) write(t *testing.T) {
	t.Helper()
	var b strings.Builder
	b.WriteString("# syntax=docker/dockerfile:1\nARG V=/v\n")
	for i, st := range g.stages {
		fmt.Fprintf(&b, "FROM %s AS s%d\nARG V=/v\n%s\n", st.base, i, strings.Join(st.lines, "\n"))
	}
	fmt.Fprintf(&b, "FROM scratch\nCOPY --from=s%d . /last/\n", len(g.stages)-1)
	g.file(t, "Dockerfile", b.String())
	g.file(t, ".dockerignore", "Dockerfile\n.dockerignore\nunrelated\n"+strings.Join(g.ignore, "\n"))
}

// change changes one thing.
func (g *cacheGenerator) change(t *testing.T) string {
	t.Helper()
	st := g.rng.IntN(len(g.stages))
	lines := &g.stages[st].lines
	n := g.rng.IntN(len(*lines))
	what := ""
	switch g.rng.IntN(12) {
	case 0, 1:
		f := g.name()
		what = "file " + f
		g.file(t, f, g.content())
	case 2:
		f := g.name()
		what = "file " + f + " removed"
		if _, err := os.Stat(filepath.Join(g.dir, f)); err == nil {
			remove(t, g.cacheBench, f)
		}
	case 3:
		(*lines)[n] = g.line(st)
		what = fmt.Sprintf("line %d of s%d", n, st)
	case 4:
		*lines = slices.Insert(*lines, n, g.line(st))
		what = fmt.Sprintf("line before %d of s%d", n, st)
	case 5:
		g.ignore = []string{g.pick("d/b", "**/a.txt", "!d", "e", "*\n!d\n!prog", "**/link")}
		what = "ignore " + g.ignore[0]
	case 6:
		g.request.BuildArgs = map[string]string{"V": g.pick("/v", "/w", "/d")}
		what = "V=" + g.request.BuildArgs["V"]
	case 7:
		what = g.link(t)
	case 8:
		what = g.archive(t)
	case 9:
		what = g.inNamed(t)
	case 10:
		what = g.mode(t)
	case 11:
		g.file(t, "passwd", fmt.Sprintf("me:x:%d:%d::/:/\n", g.rng.IntN(3), g.rng.IntN(3)))
		what = "the user me"
	}
	g.write(t)
	return what
}

// mode changes the permissions of a file.
func (g *cacheGenerator) mode(t *testing.T) string {
	t.Helper()
	f := g.name()
	if st, err := os.Stat(filepath.Join(g.dir, f)); err == nil && st.Mode().IsRegular() {
		if err := os.Chmod(filepath.Join(g.dir, f), st.Mode()^0o111); err != nil {
			t.Fatal(err)
		}
	}
	return "mode of " + f
}

// try builds, and returns the error of a build that cannot be.
func (g *cacheGenerator) try(t *testing.T, cached bool) (digest.Digest, *steps, error) {
	t.Helper()
	r, log, err := g.result(t, cached)
	if err != nil {
		return "", log, err
	}
	return r.Digest, log, nil
}
