// Command repository measures what a build context costs that is a git repository: 50,000 files and 500 commits on git's
// own http server on loopback, against git clone --depth 1.
//
//	go run ./test/bench/repository -n 3
//
// Printed are medians of the wall time, the CPU time of the program and its children, and the most memory that one
// process had resident. The server's share is not counted.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	fileCount   = 50_000
	commitCount = 500
	perCommit   = 20 // files that each commit changes
)

func main() {
	times := flag.Int("n", 3, "how many `times` each program runs")
	at := flag.String("dir", "/var/tmp", "`directory` to work in: a disk")
	hako := flag.String("hako", "", "the program to measure, a `file`; built if not given")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *at, *hako, *times)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "repository:", err)
		os.Exit(1)
	}
}

// usage is what one run took.
type usage struct {
	wall, cpu time.Duration
	peakBytes int64
}

func run(ctx context.Context, at, hako string, times int) (err error) {
	dir, err := os.MkdirTemp(at, "hako-repository-")
	if err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if hako == "" {
		hako = filepath.Join(dir, "hako")
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", hako, "./cmd/hako")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build hako: %w: %s", err, out)
		}
	}
	if err := makeRepository(ctx, dir); err != nil {
		return err
	}
	url, closeServer, err := serve(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeServer()) }()
	return measure(ctx, os.Stdout, commands(dir, hako, url), times)
}

// command is a program to measure. A part of its arguments is replaced by a new directory for each run.
type command struct {
	name string
	args []string
}

const fresh = "FRESH"

func commands(dir, hako, url string) []command {
	work := filepath.Join(dir, "work")
	build := func(place string, more ...string) []string {
		return append([]string{hako, "build", "--context", place, "--kaniko-dir", work, "--no-push"}, more...)
	}
	return []command{
		{"git clone --depth 1", []string{"git", "clone", "-q", "--depth", "1", url, fresh}},
		{"hako, fetch and plan only", build(url, "--dryrun")},
		{"hako, COPY of one directory", build(url, "-f", "one.Dockerfile", "--oci-layout-path", fresh)},
		{"hako, COPY of everything", build(url, "--oci-layout-path", fresh)},
		{"hako, a context of one directory", build(url+"#main:d07", "--oci-layout-path", fresh)},
		{"git clone, whole history", []string{"git", "clone", "-q", url, fresh}},
	}
}

// measure runs the commands in turns and prints a table.
func measure(ctx context.Context, w io.Writer, commands []command, times int) error {
	results := make([][]usage, len(commands))
	for n := range times {
		for i, c := range commands {
			u, err := once(ctx, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], u)
			fmt.Fprintf(os.Stderr, "%d %s: %.2f s, %.2f s CPU, %d MB\n", n+1, c.name, u.wall.Seconds(), u.cpu.Seconds(), u.peakBytes/1e6)
		}
	}
	fmt.Fprintln(w, "| what | wall s | CPU s | peak MB |\n|---|---|---|---|")
	for i, c := range commands {
		r := results[i]
		wall := median(r, func(u usage) float64 { return u.wall.Seconds() })
		cpu := median(r, func(u usage) float64 { return u.cpu.Seconds() })
		peak := median(r, func(u usage) float64 { return float64(u.peakBytes) / 1e6 })
		if _, err := fmt.Fprintf(w, "| %s | %.2f | %.2f | %.0f |\n", c.name, wall, cpu, peak); err != nil {
			return err
		}
	}
	return nil
}

func median(all []usage, of func(usage) float64) float64 {
	var values []float64
	for _, u := range all {
		values = append(values, of(u))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// once runs a command.
func once(ctx context.Context, c command) (_ usage, err error) {
	dir, err := os.MkdirTemp("", "hako-repository-")
	if err != nil {
		return usage{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := slices.Clone(c.args)
	for i := range args {
		if args[i] == fresh {
			args[i] = filepath.Join(dir, "out")
		}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return usage{}, fmt.Errorf("%w: %s", err, out)
	}
	u := usage{wall: time.Since(start), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.peakBytes = r.Maxrss << 10 // getrusage(2): kilobytes
	}
	return u, nil
}

// serve is git's http server on loopback.
func serve(dir string) (url string, closeServer func() error, err error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return "", nil, err
	}
	h := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Root: "/", Env: []string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_KEY_1=uploadpack.allowFilter", "GIT_CONFIG_VALUE_1=true",
	}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	return "http://" + l.Addr().String() + "/r.git", func() error {
		err := s.Close()
		if serr := <-done; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	}, nil
}

// makeRepository makes r.git in dir: commits that each change a few files.
func makeRepository(ctx context.Context, dir string) error {
	at := filepath.Join(dir, "r.git")
	init := exec.CommandContext(ctx, "git", "init", "-q", "--bare", "-b", "main", at)
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("make a repository: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, "git", "-C", at, "fast-import", "--quiet")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("make a repository: %w", err)
	}
	err = errors.Join(writeHistory(in), in.Close(), cmd.Wait())
	if err != nil {
		return fmt.Errorf("make a repository: %w", err)
	}
	repack := exec.CommandContext(ctx, "git", "-C", at, "repack", "-q", "-a", "-d")
	if out, err := repack.CombinedOutput(); err != nil {
		return fmt.Errorf("pack the repository: %w: %s", err, out)
	}
	return nil
}

// writeHistory writes the commits as git-fast-import(1) reads them.
func writeHistory(to io.Writer) error {
	w := bufio.NewWriterSize(to, 1<<20)
	rng := rand.New(rand.NewPCG(5, 6))
	file := func(path, text string) { fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text) }
	for c := range commitCount {
		fmt.Fprintf(w, "commit refs/heads/main\ncommitter A <a@b> %d +0000\ndata 2\nc\n", 1_700_000_000+c*60)
		if c == 0 {
			file("Dockerfile", "FROM scratch\nCOPY . /\n")
			file("one.Dockerfile", "FROM scratch\nCOPY d07 /\n")
			for i := range fileCount {
				file(name(i), text(rng))
				if i%(fileCount/25) == 0 {
					file(filepath.Join(filepath.Dir(filepath.Dir(name(i))), "Dockerfile"), "FROM scratch\nCOPY . /\n")
				}
			}
			continue
		}
		for range perCommit {
			file(name(rng.IntN(fileCount)), text(rng))
		}
	}
	return w.Flush()
}

// name is that of a file: 25 directories with 20 each.
func name(i int) string { return fmt.Sprintf("d%02d/e%02d/f%05d.txt", i/2000, i/100%20, i) }

// text is like that of a source file: a median of 1 KB, a mean of 4.
func text(rng *rand.Rand) string {
	var b strings.Builder
	for size := min(int(1000*rng.ExpFloat64()*rng.ExpFloat64()*4), 100_000); b.Len() < size; {
		fmt.Fprintf(&b, "word%d line %x\n", rng.IntN(5000), rng.Uint32())
	}
	return b.String()
}
