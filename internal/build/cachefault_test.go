package build_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// faultBench is a build whose cache is on another registry than its destination, and misbehaves.
type faultBench struct {
	*world
	cache *registrytest.Registry
	req   build.Request
}

const faultDockerfile = `FROM scratch AS lib
COPY prog /prog
RUN ["/prog", "write", "/lib", "x"]
FROM scratch
COPY prog /prog
RUN ["/prog", "write", "/one", "x"]
COPY --from=lib /lib /lib
COPY last /last
`

func newFaultBench(t *testing.T, dockerfile string) *faultBench {
	t.Helper()
	b := &faultBench{world: newWorld(t, dockerfile), cache: registrytest.New()}
	b.write(t, "last", "1")
	b.req = b.request()
	b.req.Cache = build.Cache{Enabled: true, Repository: b.cache.Start(t) + "/cache", Copies: true}
	return b
}

// once builds and returns what happened.
func (b *faultBench) once(t *testing.T) *steps {
	t.Helper()
	log := &steps{}
	if err := b.build(t.Context(), b.req, log); err != nil {
		t.Fatalf("%v\nran %v, cached %v, warnings %v", err, log.ran, log.cached, log.warnings)
	}
	if !b.req.Outputs.NoPush && !b.pushed(t, "out:1") {
		t.Error("nothing was pushed")
	}
	return log
}

// A cache that fails in any way costs little time and one warning, and no build.
func TestFaultsOfTheCache(t *testing.T) {
	t.Parallel()
	for what, f := range map[string]registrytest.Fault{
		"down":                  {Reset: true},
		"no answer":             {Hang: true},
		"no answer to uploads":  {Hang: true, Method: "POST"},
		"credentials refused":   {Status: 401, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}},
		"pushes refused":        {Status: 403, Method: "POST"},
		"everything refused":    {Status: 403},
		"too many requests":     {Status: 429, Header: http.Header{"Retry-After": {"100"}}},
		"broken":                {Status: 500},
		"records are too large": {Endless: true, Method: "GET", Path: "/manifests/"},
		"manifests refused":     {Status: 400, Method: "PUT"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newFaultBench(t, faultDockerfile)
			b.cache.Inject(f)
			b.req.Cache.Patience = 200 * time.Millisecond
			if log := b.once(t); len(log.warnings) != 1 || len(log.ran) != 5 {
				t.Errorf("ran %v, warnings %q", log.ran, log.warnings)
			}
		})
	}
}

// What the cache has lost since it said that it has it is made again.
func TestLostLayers(t *testing.T) {
	t.Parallel()
	gone := registrytest.Fault{Method: "GET", Path: "/blobs/", Status: 404}
	for what, c := range map[string]struct {
		fault  registrytest.Fault
		change string // of the Dockerfile, so that something has to be run
		output func(r *build.Request, dir string)
	}{
		"at the push":             {fault: gone},
		"below a step that runs":  {fault: gone, change: "RUN [\"/prog\", \"write\", \"/two\", \"x\"]\n"},
		"in a stage that is read": {fault: gone, change: "COPY --from=lib / /all\n"},
		"damaged":                 {fault: registrytest.Fault{Method: "GET", Path: "/blobs/", Corrupt: true}},
		"stalled":                 {fault: registrytest.Fault{Method: "GET", Path: "/blobs/", StallAfter: 10}},
		"credentials are gone":    {fault: registrytest.Fault{Method: "GET", Path: "/blobs/", Status: 401}},
		"in an archive":           {fault: gone, output: func(r *build.Request, dir string) { r.Outputs.NoPush, r.Outputs.TarPath = true, dir+"/out.tar" }},
		"in a directory of files": {fault: gone, output: func(r *build.Request, dir string) {
			r.Outputs.Exports = []output.Export{{Kind: output.Local, Dest: dir + "/out"}}
		}},
		"in a layer made of several": {fault: gone, output: func(r *build.Request, _ string) { r.Squash = build.SquashAll }},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newFaultBench(t, faultDockerfile)
			b.once(t)
			if c.output != nil {
				c.output(&b.req, t.TempDir())
			}
			b.req.Outputs.Destinations = []string{b.host + "/other/out:1"} // which has none of the layers
			b.write(t, "Dockerfile", strings.Replace(faultDockerfile, "COPY last", c.change+"COPY last", 1))
			b.cache.Inject(c.fault)
			if c.fault.StallAfter > 0 {
				b.req.Cache.Patience = time.Second // long enough for a busy machine
			}
			log := &steps{}
			if err := b.build(t.Context(), b.req, log); err != nil {
				t.Fatalf("%v\nran %v, cached %v, warnings %v", err, log.ran, log.cached, log.warnings)
			}
			if !b.req.Outputs.NoPush && !b.pushed(t, "other/out:1") {
				t.Error("nothing was pushed")
			}
			if len(log.warnings) == 0 || len(log.ran) == 0 {
				t.Errorf("ran %v, warnings %q", log.ran, log.warnings)
			}
		})
	}
}

// Only what was lost is made again, and what stands on it if that is not the same.
func TestOneLostLayer(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	b.once(t)
	b.req.Outputs.Destinations = []string{b.host + "/other/out:1"}
	b.cache.Inject(registrytest.Fault{Method: "GET", Path: "/blobs/", Status: 404, Times: 1})
	log := &steps{}
	if err := b.build(t.Context(), b.req, log); err != nil {
		t.Fatal(err)
	}
	if len(log.ran) != 1 || len(log.warnings) != 1 {
		t.Errorf("ran %v, warnings %q", log.ran, log.warnings)
	}
}

// A step that runs while a layer turns out to be lost is not run twice.
func TestLossEndsNothingElse(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	b.once(t)
	b.write(t, "Dockerfile", strings.Replace(faultDockerfile, "COPY last", "RUN [\"/prog\", \"write\", \"/two\", \"x\"]\nCOPY last", 1)+
		"FROM scratch AS side\nCOPY prog last /\nRUN [\"/prog\", \"write\", \"/side\", \"new\"]\nFROM stage-1\nCOPY --from=side /side /\n")
	b.write(t, "Dockerfile", strings.Replace(b.text(t), "FROM scratch\n", "FROM scratch AS stage-1\n", 1))
	b.cache.Inject(registrytest.Fault{Method: "GET", Path: "/blobs/", Status: 404})
	log := b.once(t)
	if n := count(log.ran, "side/2"); n != 1 {
		t.Errorf("it ran %d times: %v", n, log.ran)
	}
}

func (w *world) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.context, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func count(all []string, what string) (n int) {
	for _, s := range all {
		if s == what {
			n++
		}
	}
	return n
}

// asUser runs the test once more as a user that is not root, and says whether this is that run.
func asUser(t *testing.T) bool {
	t.Helper()
	if os.Getuid() != 0 {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A directory that cannot be written to is read, and that nothing is kept there is said once.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	if !asUser(t) {
		return
	}
	b := newCacheBench(t)
	b.file(t, "a", "1")
	b.file(t, "b", "1")
	b.file(t, "Dockerfile", "FROM scratch\nCOPY a /\nCOPY b /\n")
	b.build(t, true)
	readOnly := func(mode os.FileMode) {
		for _, d := range []string{"", "records", "sha256", "new"} {
			if err := os.Chmod(filepath.Join(b.cache, d), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	readOnly(0o555)
	t.Cleanup(func() { readOnly(0o755) })
	if log := b.same(t, "nothing changed"); len(log.cached) != 2 {
		t.Errorf("cached %v", log.cached)
	}
	b.file(t, "b", "2")
	for range 2 {
		if _, log := b.build(t, true); len(log.cached) != 1 || len(log.warnings) != 1 {
			t.Errorf("cached %v, warnings %q", log.cached, log.warnings)
		}
	}
}

// A place that is no directory is a warning.
func TestImpossibleDirectory(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	b.req.Cache.Repository = "oci:/dev/null/cache"
	if log := b.once(t); len(log.warnings) != 1 || len(log.ran) != 5 {
		t.Errorf("ran %v, warnings %q", log.ran, log.warnings)
	}
}

// What a farther place has is kept in a nearer one.
func TestCopiesToTheNearest(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	b.once(t)
	far := b.req.Cache.Repository
	b.req.Cache.Repository, b.req.Cache.Sources = "oci:"+t.TempDir(), []string{far}
	var all sync.WaitGroup
	for range 3 { // concurrent builds fill one directory
		all.Go(func() {
			if err := b.build(t.Context(), b.req, event.Discard{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	b.cache.Inject(registrytest.Fault{Reset: true}) // it is not needed any more
	b.req.Outputs.Destinations = []string{b.host + "/other/out:1"}
	log := &steps{}
	if err := b.build(t.Context(), b.req, log); err != nil {
		t.Fatal(err)
	}
	if len(log.ran) > 0 || !b.pushed(t, "other/out:1") || !slices.Contains(log.cached, "lib/2") {
		t.Errorf("ran %v, cached %v, warnings %q", log.ran, log.cached, log.warnings)
	}
}

// With a key, only what was signed with it is taken; who has the public key takes it, and writes nothing.
func TestSignedCache(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	password := "pw"
	keys := filepath.Join("..", "sign", "testdata")
	private, err := filepath.Abs(filepath.Join(keys, "cosign.key"))
	if err != nil {
		t.Fatal(err)
	}
	public, err := filepath.Abs(filepath.Join(keys, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	b.once(t) // leaves records that nobody signed
	for i, c := range []struct {
		key              build.Signing
		cached, warnings int
	}{
		{build.Signing{KeyText: strings.Repeat("s", 20)}, 0, 1},
		{build.Signing{KeyText: strings.Repeat("s", 20)}, 5, 0},
		{build.Signing{KeyFile: public}, 0, 1},
		{build.Signing{KeyFile: private, Password: password}, 0, 1},
		{build.Signing{KeyFile: private, Password: password}, 5, 0},
		{build.Signing{KeyFile: public}, 5, 0},
		{build.Signing{}, 5, 0},
	} {
		b.req.Cache.Key = c.key
		if log := b.once(t); len(log.cached) != c.cached || len(log.warnings) != c.warnings {
			t.Errorf("build %d: cached %v, warnings %q", i, log.cached, log.warnings)
		}
	}
	for _, bad := range []build.Signing{{KeyText: "short"}, {KeyFile: "/none"}, {KeyFile: private, Password: "wrong"}} {
		b.req.Cache.Key = bad
		if err := b.build(t.Context(), b.req, event.Discard{}); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

// A layer with the right digest that cannot be unpacked is lost, too.
func TestSenselessLayers(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, faultDockerfile)
	b.once(t)
	b.write(t, "Dockerfile", strings.Replace(faultDockerfile, "COPY last", "RUN [\"/prog\", \"write\", \"/two\", \"x\"]\nCOPY last", 1))
	senseless := []byte("this is no layer")
	upload(t, b.req.Cache.Repository, senseless)
	b.cache.Inject(registrytest.Fault{Method: "GET", Path: "/manifests/", Rewrite: func(data []byte) []byte {
		var m ocispec.Manifest
		if json.Unmarshal(data, &m) != nil || len(m.Layers) < 2 {
			return data
		}
		// The record and the manifest name another blob as the layer.
		text := strings.ReplaceAll(string(data), m.Layers[0].Digest.String(), digest.FromBytes(senseless).String())
		return []byte(strings.ReplaceAll(text, fmt.Sprintf("size\\\":%d,\\\"diffID", m.Layers[0].Size), fmt.Sprintf("size\\\":%d,\\\"diffID", len(senseless))))
	}})
	if log := b.once(t); len(log.warnings) == 0 {
		t.Errorf("ran %v, cached %v", log.ran, log.cached)
	}
}

func upload(t *testing.T, repository string, data []byte) {
	t.Helper()
	client, err := registry.New(registry.Options{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	repo, err := name.NewRepository(repository, name.WeakValidation)
	if err != nil {
		t.Fatal(err)
	}
	err = client.Repository(repo, registry.Push).Upload(t.Context(), registry.Blob{
		Digest: digest.FromBytes(data), Size: int64(len(data)),
		Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
}

// On a full disk the build goes on, and what fitted is there.
func TestFullDirectory(t *testing.T) {
	t.Parallel()
	b := newCacheBench(t)
	if err := unix.Mount("tmpfs", b.cache, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("needs CAP_SYS_ADMIN: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(b.cache, 0); err != nil {
			t.Error(err)
		}
	})
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // never fails
	b.file(t, "a", "1")
	b.file(t, "noise", string(noise))
	b.file(t, "Dockerfile", "FROM scratch\nCOPY a /\n")
	b.build(t, true)
	b.file(t, "Dockerfile", "FROM scratch\nCOPY a /\nCOPY noise /\nWORKDIR /w\n")
	with, log := b.build(t, true)
	without, _ := b.build(t, false)
	if with != without || len(log.warnings) != 1 || len(log.cached) != 1 {
		t.Errorf("%s, %s, cached %v, warnings %q", with, without, log.cached, log.warnings)
	}
}
