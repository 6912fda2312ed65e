package build_test

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"hako/internal/build"
	"hako/internal/event"
)

const secretly = `FROM scratch AS a
COPY prog /prog
RUN --mount=type=secret,id=s --mount=type=secret,id=v,env=SECRET --mount=type=cache,target=/c ["/prog", "see", "26 26"]
RUN ["/prog", "blind"]
RUN --mount=type=secret,id=s ["/prog", "see", "26 0"]
`

// everything collects all that is said about a build.
type everything struct {
	mu sync.Mutex
	b  strings.Builder
}

// Emit is event.Sink's.
func (e *everything) Emit(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fmt.Fprintf(&e.b, "%+v %#v %s\n", ev, ev, ev)
	if out, ok := ev.(event.StepOutput); ok {
		e.b.Write(out.Line)
	}
}

// TestASecretIsNowhere looks for the bytes of secrets in every layer, the configuration, the manifest, the log, the plan,
// printed requests, the work directory and the cache.
func TestASecretIsNowhere(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sentry", "native"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, secretly)
			inFile, inVariable := rand.Text(), rand.Text()
			file := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(file, []byte(inFile), 0o600); err != nil {
				t.Fatal(err)
			}
			req := w.request()
			req.Sandbox = engine
			req.Secrets = []build.Secret{{ID: "s", Path: file}, {ID: "v", Value: build.SecretValue(inVariable)}}
			req.Outputs.OCILayoutPath = filepath.Join(t.TempDir(), "layout")
			store := t.TempDir()
			req.Cache = build.Cache{Enabled: true, Repository: "oci:" + store, Copies: true}
			var said everything
			if err := w.build(t.Context(), req, &said); err != nil {
				if engine == "native" && os.Getenv("HAKO_CI") == "" && strings.Contains(err.Error(), "native") {
					t.Skip("needs a machine that allows it: ", err)
				}
				t.Fatal(err)
			}
			fmt.Fprintf(&said.b, "%v %+v %#v", req, req, req)
			var plan bytes.Buffer
			req.DryRun = true
			_, err := build.Build(t.Context(), build.Env{
				Now: time.Now, Getenv: func(string) string { return "" }, Cwd: w.context, Stdout: &plan, Events: &said,
			}, req)
			if err != nil {
				t.Fatal(err)
			}
			places := map[string]string{"log": said.b.String(), "plan": plan.String()}
			collectFiles(t, places, req.Outputs.OCILayoutPath)
			collectFiles(t, places, w.work)
			if len(places) < 8 {
				t.Errorf("only %d places: the layout must be among them", len(places))
			}
			collectFiles(t, places, store)
			if len(places) < 20 {
				t.Errorf("only %d places: records, layers and listings of the cache must be among them", len(places))
			}
			for name, text := range places {
				if strings.Contains(text, inFile) || strings.Contains(text, inVariable) {
					t.Errorf("a secret is in %s", name)
				}
			}
		})
	}
}

// collectFiles adds the content of all files below dir to places, unpacked where it is compressed.
func collectFiles(t *testing.T, places map[string]string, dir string) {
	t.Helper()
	unzstd, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer unzstd.Close()
	err = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		places[p] = string(data)
		if z, err := gzip.NewReader(bytes.NewReader(data)); err == nil {
			plain, err := io.ReadAll(z)
			if err != nil {
				return err
			}
			places[p] += string(plain)
		}
		if plain, err := unzstd.DecodeAll(data, nil); err == nil {
			places[p] += string(plain)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
