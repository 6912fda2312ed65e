package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/rogpeppe/go-internal/testscript"

	"hako/internal/minibase"
	"hako/internal/sandbox/choice"
)

// TestMain makes the test binary play hako and executor for the scripts, and the sentry that they start.
func TestMain(m *testing.M) {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	program := func() { os.Exit(realMain()) }
	testscript.Main(m, map[string]func(){"hako": program, "executor": program, "warmer": program})
}

func realMain() int {
	cwd, err := os.Getwd()
	if err != nil {
		return 1
	}
	return Main(context.Background(), Env{
		Environ: os.Environ(), Cwd: cwd, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Version: "v1.2.3",
	}, os.Args)
}

// TestScript runs testdata/script. Each script has a registry of its own at $REG with the image base:1, which holds
// /etc/os-release of 0:0 and has the variable BASE=1, and its directory is served by https at $WEB; besides testscript's commands there are:
//
//	exits CODE PROGRAM ARG…   runs a program and checks its exit code
//	image REF                 prints the files of an image as "type mode uid:gid path [-> link]", and its config's Env, Cmd, Labels
//	index REF [PLATFORM]      prints the media type of an index, and of each manifest in it, with platform; checks all of it;
//	                          with a platform, it does what image does for that platform's image
//	media REF                 prints the media types of a manifest, its configuration and its layers
//	annotations REF           prints the annotations of an index and of each manifest in it, or of a manifest
//	history REF               prints the history of an image, a line for each entry: "layer" or "empty", and what made it
//	digest REF                prints the digest that the registry has for REF
//	times REF                 prints the times of an image, of its history and of the files in its layers
//	minibase REF              pushes the small base image, which has a shell; skips where there is no go command
//	gitserver DIR             serves a commit of DIR as https://$GIT/r.git, for the user u with the password p; ca.pem is its authority
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
			e.Defer(server.Close)
			host := strings.TrimPrefix(server.URL, "http://")
			e.Setenv("REG", host)
			if err := serveFiles(e); err != nil {
				return err
			}
			e.Setenv("NO_COLOR", "1")
			e.Setenv("HOME", e.WorkDir)
			return pushBase(host + "/base:1")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "times": printTimes, "image": printImage, "digest": printDigest, "index": printIndex,
			"media": printMedia, "annotations": printAnnotations, "history": printHistory, "minibase": minibaseCommand(t), "gitserver": gitServer(t),
		},
		RequireExplicitExec: true,
		UpdateScripts:       *update,
	})
}

// serveFiles serves the script's directory at $WEB by https, with a certificate of the authority $WEB_CA; what is below
// private needs the user me with the password secret.
func serveFiles(e *testscript.Env) error {
	files := http.FileServer(http.Dir(e.WorkDir))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); strings.HasPrefix(r.URL.Path, "/private/") && user+password != "mesecret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		files.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	e.Defer(server.Close)
	e.Setenv("WEB", server.URL)
	ca := filepath.Join(e.WorkDir, ".web-ca.pem")
	e.Setenv("WEB_CA", ca)
	return os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600)
}

func pushBase(refName string) error {
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	text := "ID=base\n"
	for _, h := range []*tar.Header{
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "etc/os-release", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))},
	} {
		h.ModTime = time.Unix(1e9, 0)
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(tw, text); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return err
	}
	im, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	config, err := im.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.Env = "linux", "amd64", []string{"BASE=1"}
	if im, err = mutate.ConfigFile(im, config); err != nil {
		return err
	}
	ref, err := name.ParseReference(refName)
	if err != nil {
		return err
	}
	return remote.Write(ref, im)
}

// exits runs a program that is expected to fail with a certain code, or to succeed with 0.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit interface{ ExitCode() int }
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%s exits with %d, want %s", args[1], code, args[0])
	}
}

// minibaseCommand pushes the base image, which is compiled once.
func minibaseCommand(t *testing.T) func(*testscript.TestScript, bool, []string) {
	dir := t.TempDir()
	image := sync.OnceValues(func() (v1.Image, error) {
		box, err := minibase.Compile(context.Background(), runtime.GOARCH, dir)
		if err != nil {
			return nil, err
		}
		return minibase.Image(box, runtime.GOARCH)
	})
	return func(ts *testscript.TestScript, _ bool, args []string) {
		if _, err := exec.LookPath("go"); err != nil {
			t.Skip("needs the go command")
		}
		im, err := image()
		ts.Check(err)
		ref, err := name.ParseReference(args[0])
		ts.Check(err)
		ts.Check(remote.Write(ref, im))
	}
}

func pull(ts *testscript.TestScript, refName string) v1.Image {
	ref, err := name.ParseReference(refName)
	ts.Check(err)
	im, err := remote.Image(ref)
	ts.Check(err)
	checkDocuments(ts, refName)
	return im
}

func printDigest(ts *testscript.TestScript, neg bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Head(ref)
	if neg {
		if err == nil {
			ts.Fatalf("%s exists", args[0])
		}
		return
	}
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), d.Digest)
}

func printImage(ts *testscript.TestScript, _ bool, args []string) { showImage(ts, pull(ts, args[0])) }

func printIndex(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	idx, err := remote.Index(ref)
	ts.Check(err)
	ts.Check(validate.Index(idx))
	checkDocuments(ts, args[0])
	m, err := idx.IndexManifest()
	ts.Check(err)
	if len(args) == 1 {
		fmt.Fprintln(ts.Stdout(), m.MediaType)
	}
	for _, d := range m.Manifests {
		if len(args) == 1 {
			fmt.Fprintln(ts.Stdout(), d.MediaType, d.Platform)
		} else if d.Platform.String() == args[1] {
			im, err := idx.Image(d.Digest)
			ts.Check(err)
			showImage(ts, im)
		}
	}
}

func showImage(ts *testscript.TestScript, im v1.Image) {
	flat := mutate.Extract(im)
	defer flat.Close()
	var lines []string
	tr := tar.NewReader(flat)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		ts.Check(err)
		line := fmt.Sprintf("%c %04o %d:%d /%s", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, path.Clean(h.Name))
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		lines = append(lines, line)
	}
	sort.Slice(lines, func(i, j int) bool { return strings.Fields(lines[i])[3] < strings.Fields(lines[j])[3] })
	config, err := im.ConfigFile()
	ts.Check(err)
	for _, kv := range []struct {
		key   string
		value any
	}{{"env", config.Config.Env}, {"cmd", config.Config.Cmd}, {"labels", config.Config.Labels}} {
		if text := fmt.Sprint(kv.value); text != "[]" && text != "map[]" {
			lines = append(lines, kv.key+" "+text)
		}
	}
	fmt.Fprintln(ts.Stdout(), strings.Join(lines, "\n"))
}
