// Command demo shows the main job on any Linux machine with Go, without Docker, without root and without an account anywhere:
//
//	go run ./demo
//
// It builds hako and the small base image from this repository, starts a registry on a loopback port, and has hako
// build examples/hello for it: four stages with RUN steps. Then it pulls the result back and checks every byte of it.
// The registry and everything else is gone when the command ends.
package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"hako/internal/minibase"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hako-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	say("building hako (the first time takes a few minutes: gVisor is compiled too)")
	hako := filepath.Join(dir, "hako")
	if err := command(ctx, root, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", hako, "./cmd/hako"); err != nil {
		return fmt.Errorf("build hako: %w", err)
	}
	host, stop, err := serveRegistry()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	base, target := host+"/minibase:1", host+"/hello:1.0"
	say("building a base image from Go source, pushing it as %s", base)
	if err := pushBase(ctx, base, dir); err != nil {
		return err
	}

	say("hako build examples/hello -t %s (as uid %d)", target, os.Getuid())
	start := time.Now()
	if err := command(ctx, root, hako, "build", "examples/hello", "--build-arg", "BASE="+base, "--build-arg", "VERSION=1.0", "-t", target); err != nil {
		return fmt.Errorf("build examples/hello: %w", err)
	}
	took := time.Since(start).Round(time.Millisecond)

	say("pulling it back")
	digest, err := check(ctx, target)
	if err != nil {
		return fmt.Errorf("check %s: %w", target, err)
	}
	say("built, pushed and verified in %s:", took)
	fmt.Printf("%s@%s\n", target, digest)
	return nil
}

func say(format string, args ...any) { fmt.Printf("\n==> "+format+"\n", args...) }

// command runs a program in dir with our streams, without cgo.
func command(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}

// moduleRoot is the directory of this repository, from wherever in it the command was started.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find go.mod: run this inside the repository: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

// serveRegistry serves an empty registry in memory on a free loopback port.
func serveRegistry() (host string, stop func() error, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0))), ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return listener.Addr().String(), func() error {
		err := server.Close()
		if s := <-served; !errors.Is(s, http.ErrServerClosed) {
			err = errors.Join(err, s)
		}
		return err
	}, nil
}

func pushBase(ctx context.Context, refName, dir string) error {
	box, err := minibase.Compile(ctx, runtime.GOARCH, dir)
	if err != nil {
		return err
	}
	im, err := minibase.Image(box, runtime.GOARCH)
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(refName)
	if err != nil {
		return err
	}
	return remote.Write(ref, im, remote.WithContext(ctx))
}

// check pulls the image, verifies all its digests and looks at what its last stage should have left.
func check(ctx context.Context, refName string) (digest v1.Hash, err error) {
	ref, err := name.ParseReference(refName)
	if err != nil {
		return digest, err
	}
	im, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return digest, err
	}
	if err := validate.Image(im); err != nil {
		return digest, err
	}
	config, err := im.ConfigFile()
	if err != nil {
		return digest, err
	}
	if config.Config.User != "web" || len(config.Config.Entrypoint) != 1 {
		return digest, fmt.Errorf("unexpected configuration: user %q, entry point %q", config.Config.User, config.Config.Entrypoint)
	}
	if err := checkFiles(im); err != nil {
		return digest, err
	}
	return im.Digest()
}

func checkFiles(im v1.Image) (err error) {
	want := map[string]string{
		"srv/www/index.html":  "101:101 644",
		"var/lib/hello":       "101:101 2750",
		"usr/local/bin/hello": "0:0 755",
	}
	flat := mutate.Extract(im)
	defer func() { err = errors.Join(err, flat.Close()) }()
	tr := tar.NewReader(flat)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		path := filepath.Clean(h.Name)
		expected, ok := want[path]
		if !ok {
			continue
		}
		delete(want, path)
		got := fmt.Sprintf("%d:%d %o", h.Uid, h.Gid, h.Mode&0o7777)
		if got != expected {
			return fmt.Errorf("%s is %s, want %s", path, got, expected)
		}
		fmt.Printf("%-22s %s\n", path, got)
	}
	for path := range want {
		return fmt.Errorf("%s is missing", path)
	}
	return nil
}
