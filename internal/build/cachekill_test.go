package build_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
)

// childVariable makes the test binary a process that builds, again and again, until it is killed: DIRECTORY of everything,
// number of the process, and where the registry is, with commas between.
const childVariable = "HAKO_CACHE_CHILD"

const killDockerfile = "FROM scratch AS s\nWORKDIR /w\nCOPY a /w/\nCOPY big /w/\nFROM scratch\nCOPY --from=s /w/a /x/\nCOPY b /x/\nCOPY big /\n"

// lines writes a line for each event, so that who reads them knows how far a build is.
type lines struct{}

func (lines) Emit(e event.Event) { fmt.Printf("%T\n", e) }

// killRequest is the build of process number n.
func killRequest(dir, registry string, n int) build.Request {
	own := filepath.Join(dir, "build"+strconv.Itoa(n))
	req := build.Request{
		Context: own, Dockerfile: filepath.Join(dir, "Dockerfile"), WorkDir: filepath.Join(dir, "work"), Outputs: build.Outputs{NoPush: true},
		Registry: build.Registry{Insecure: true, InsecurePull: true},
		Cache:    build.Cache{Enabled: true, Repository: registry + "/cache", Copies: true},
	}
	if n%2 == 0 {
		req.Cache.Repository, req.Cache.Sources = "oci:"+filepath.Join(dir, "cache"), []string{registry + "/cache"}
	}
	return req
}

// cacheChild builds with ever new files until it is killed.
func cacheChild(spec string) int {
	parts := strings.Split(spec, ",")
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 1
	}
	req := killRequest(parts[0], parts[2], n)
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), uint64(n))) //nolint:gosec // small
	for {
		if err := killFiles(req.Context, rng.IntN(3), rng.IntN(3)); err != nil {
			fmt.Println(err)
			return 1
		}
		if _, err := build.Build(context.Background(), killEnv(req.Context, lines{}), req); err != nil {
			fmt.Println(err)
			return 1
		}
	}
}

func killEnv(dir string, events event.Sink) build.Env {
	return build.Env{
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) }, Getenv: func(string) string { return "" }, Cwd: dir, Stdout: io.Discard, Events: events,
	}
}

// killFiles writes the files of one of nine contexts.
func killFiles(dir string, a, b int) error {
	for name, text := range map[string]string{
		"a": strconv.Itoa(a), "b": strconv.Itoa(b), "big": strings.Repeat(strconv.Itoa(a)+" something to pack\n", 50_000),
	} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			return err
		}
		if err := os.Chtimes(p, time.Unix(1_500_000_000, 0), time.Unix(1_500_000_000, 0)); err != nil {
			return err
		}
	}
	return nil
}

// TestBuildsAreKilled lets eight processes build with one directory and one repository, kills them at any moment, and looks at
// what they leave. HAKO_CACHE_KILLS is how often.
func TestBuildsAreKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	reg := registrytest.New()
	host := reg.Start(t)
	for _, d := range []string{"work", "cache"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(killDockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	const processes = 8
	var all sync.WaitGroup
	for n := range processes + 1 {
		if err := os.Mkdir(filepath.Join(dir, "build"+strconv.Itoa(n)), 0o755); err != nil {
			t.Fatal(err)
		}
		if n == processes {
			break
		}
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 5)) //nolint:gosec // small
			for range max(number("HAKO_CACHE_KILLS", 24)/processes, 1) {
				killed(t, fmt.Sprintf("%s,%d,%s", dir, n, host), 1+rng.IntN(60))
			}
		})
	}
	reader := killRequest(dir, host, processes) // number 8 only reads the directory, all the time
	reader.Cache.ReadOnly, reader.Cache.Sources = true, nil
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	for i := 0; ; i++ {
		compareKilled(t, reader, i%9)
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	verifyDirectory(t, filepath.Join(dir, "cache"))
	for _, n := range []int{0, 1} {
		req := killRequest(dir, host, n)
		for i := range 9 {
			compareKilled(t, req, i)
		}
	}
}

// killed runs a process until it has said so many lines, and kills it.
func killed(t *testing.T, spec string, after int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), childVariable+"="+spec)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	said := bufio.NewScanner(out)
	last := ""
	for range after {
		if !said.Scan() {
			t.Errorf("a build ended by itself: %s", last)
			break
		}
		if last = said.Text(); last == "event.Warning" {
			t.Error("a build warned")
		}
	}
	_ = cmd.Process.Kill() // SIGKILL
	_ = cmd.Wait()         // says that it was killed
}

// compareKilled builds context number i with the cache, and without.
func compareKilled(t *testing.T, req build.Request, i int) {
	t.Helper()
	if err := killFiles(req.Context, i/3, i%3); err != nil {
		t.Fatal(err)
	}
	log := &steps{}
	with, err := build.Build(t.Context(), killEnv(req.Context, log), req)
	if err != nil {
		t.Fatal(err)
	}
	req.Cache = build.Cache{}
	without, err := build.Build(t.Context(), killEnv(req.Context, event.Discard{}), req)
	if err != nil {
		t.Fatal(err)
	}
	if with.Digest != without.Digest || len(log.warnings) > 0 {
		t.Errorf("context %d: %s with the cache, %s without; %v", i, with.Digest, without.Digest, log.warnings)
	}
}

// verifyDirectory makes sure that all that the directory has is intact.
func verifyDirectory(t *testing.T, dir string) {
	t.Helper()
	blobs, err := os.ReadDir(filepath.Join(dir, "sha256"))
	if err != nil || len(blobs) == 0 {
		t.Fatal("there are no blobs", err)
	}
	for _, b := range blobs {
		data, err := os.ReadFile(filepath.Join(dir, "sha256", b.Name()))
		if err != nil || digest.FromBytes(data).Encoded() != b.Name() {
			t.Errorf("blob %s is damaged: %v", b.Name(), err)
		}
	}
}
