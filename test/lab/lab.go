// Package lab starts the real components that whole-product tests and benchmarks run against: a Docker engine,
// a CNCF distribution registry and base images made here from Debian's archive, because none can be pulled.
// It also reads images back with code that shares nothing with the product.
//
// Nothing here skips or fails a test: what is missing is an error that says what to install.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Command is a program to run to its end.
type Command struct {
	// Args are the program and its arguments.
	Args []string
	// Dir is the working directory, Env the whole environment; empty means ours.
	Dir string
	Env []string
	// Stdin is read by the program; nil means none.
	Stdin io.Reader
}

// Result is how a command ended.
type Result struct {
	// ExitCode is the program's exit code, or 128 and the signal that ended it.
	ExitCode int
	// Output is what it wrote to standard output and error, in order of arrival; Stdout is the former alone.
	Output, Stdout string
	// Wall is how long it ran; CPU the user and system time of it and of the children that it waited for.
	Wall, CPU time.Duration
}

// Run runs c. Its error says that the program could not run at all or that ctx ended; a bad exit code is no error.
func Run(ctx context.Context, c Command) (Result, error) {
	var stdout bytes.Buffer
	both := &lockedBuffer{}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, both), both
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := Result{Output: both.String(), Stdout: stdout.String(), Wall: time.Since(start)}
	if s := cmd.ProcessState; s != nil {
		r.CPU = s.UserTime() + s.SystemTime()
		r.ExitCode = exitCode(s)
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return r, fmt.Errorf("run %s: %w\n%s", strings.Join(c.Args, " "), err, r.Output)
	}
	return r, nil
}

// Must runs the command args and returns its standard output; a bad exit code is an error with all of its output.
func Must(ctx context.Context, args ...string) (string, error) {
	r, err := Run(ctx, Command{Args: args})
	if err != nil {
		return "", err
	}
	if r.ExitCode != 0 {
		return "", fmt.Errorf("run %s: exit code %d\n%s", strings.Join(args, " "), r.ExitCode, r.Output)
	}
	return r.Stdout, nil
}

// CacheDir is where things that take long to make are kept between runs: $HAKO_CACHE or the user's cache directory.
func CacheDir() (string, error) {
	dir := os.Getenv("HAKO_CACHE")
	if dir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the cache directory: %w", err)
		}
		dir = filepath.Join(user, "hako-test")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	return dir, nil
}

// NewDir makes a directory below another one that every user may read.
func NewDir(below string) (string, error) {
	dir, err := os.MkdirTemp(below, "")
	if err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // containers and pods of any user read it
		return "", fmt.Errorf("make a directory readable: %w", err)
	}
	return dir, nil
}

// ModuleRoot is the directory of go.mod above the current directory.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("find the module: no go.mod above the current directory")
		}
		dir = up
	}
}

// Poll calls done every interval until it says true; it returns ctx's cause if ctx ends first.
func Poll(ctx context.Context, interval time.Duration, done func() bool) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}

// lockedBuffer is a buffer that the copiers of two pipes may write to.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
