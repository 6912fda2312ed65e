package kubernetes

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// gate stands before a registry, and lets nothing through that names a repository below /held/ and moves the content of blobs.
type gate struct {
	http.Handler
	mu      sync.Mutex
	reached map[string]bool // "pull", "push"
	// open is closed when nobody is held any more.
	open chan struct{}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pulls := r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
	pushes := r.Method == http.MethodPatch || r.Method == http.MethodPut
	if !strings.HasPrefix(r.URL.Path, "/v2/held/") || !pulls && !pushes {
		g.Handler.ServeHTTP(w, r)
		return
	}
	g.mu.Lock()
	g.reached[map[bool]string{true: "pull", false: "push"}[pulls]] = true
	g.mu.Unlock()
	if pulls { // half of something
		w.Header().Set("Content-Length", "1000000")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // the client notices
	}
	select {
	case <-r.Context().Done():
	case <-g.open:
	}
}

func (g *gate) has(what string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reached[what]
}

// forget begins anew.
func (g *gate) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.reached)
}

// victims are builds that share two claims, for their work directories and for the cache, and that are stopped where each is.
type victims struct {
	*fixture
	ns          string
	gate        *gate
	held        string // the registry behind the gate, for pods
	work, steps string // directories of the claims
}

// stages are where builds are stopped, and their Dockerfiles.
func (v *victims) stages(t *testing.T) map[string]string {
	base := must[string](t)(v.busybox())
	return map[string]string{
		"pull":     "FROM " + v.held + "/held/base\nRUN true\n",
		"run":      "FROM " + base + "\nRUN echo data > /data && echo running && sleep 600\n",
		"snapshot": "FROM " + base + "\nRUN head -c 200000000 /dev/urandom > /data && echo running\n",
		"push":     "FROM " + base + "\nRUN echo pushed > /data\n",
	}
}

func newVictims(t *testing.T, f *fixture) *victims {
	t.Helper()
	v := &victims{fixture: f, ns: f.namespace(t, "restricted"), work: f.newDir(t), steps: f.newDir(t)}
	to := must[*url.URL](t)(url.Parse("http://" + f.registry.Addr))
	v.gate = &gate{Handler: httputil.NewSingleHostReverseProxy(to), reached: map[string]bool{}, open: make(chan struct{})}
	server := httptest.NewServer(v.gate)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(v.gate.open) })
	v.held = f.expose(t, server.Listener.Addr().String())
	must[string](t)(v.busybox())
	for claim, dir := range map[string]string{"work": v.work, "steps": v.steps} {
		if err := os.Chown(dir, 1000, 1000); err != nil {
			t.Fatal(err)
		}
		v.hostPath(t, v.ns, claim, dir)
	}
	if err := lab.PushBusybox(t.Context(), f.registry.Addr+"/held/base"); err != nil {
		t.Fatal(err)
	}
	for stage, dockerfile := range v.stages(t) {
		f.configMap(t, v.ns, stage, map[string]string{"Dockerfile": dockerfile})
	}
	return v
}

// ref is where the build of a stage pushes to, as pods reach it.
func (v *victims) ref(stage, name string) string { return v.held + "/held/" + stage + ":" + name }

// start starts the build of a stage, as a pod whose object stays after its deletion, until finish.
func (v *victims) start(t *testing.T, name, stage, destination string) {
	t.Helper()
	p := pod{
		Name: name, Args: []string{
			"--context=dir:///workspace", "--destination=" + destination, "--insecure", "--insecure-pull", "--skip-push-permission-check",
			"--cache", "--cache-repo=oci:/steps", "--log-format=text",
		},
		Volumes: map[string]map[string]any{
			"/workspace": {"configMap": map[string]any{"name": stage}},
			"/steps":     {"persistentVolumeClaim": map[string]any{"claimName": "steps"}},
		},
		Change: func(spec map[string]any) {
			spec["volumes"].([]any)[0] = map[string]any{"name": "work", "persistentVolumeClaim": map[string]any{"claimName": "work"}}
		},
	}
	v.apply(t, v.ns, strings.Replace(p.manifest(t, v.fixture), `"metadata":{`, `"metadata":{"finalizers":["hako.test/kept"],`, 1))
	t.Cleanup(func() {
		v.mustKubectl(t, "", "-n", v.ns, "patch", "pod", name, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	})
}

// await waits until the build of a stage is there.
func (v *victims) await(t *testing.T, name, stage string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	err := lab.Poll(ctx, 50*time.Millisecond, func() bool {
		if stage == "pull" || stage == "push" {
			return v.gate.has(stage)
		}
		return strings.Contains(v.kubectl(t, "", "-n", v.ns, "logs", name).Stdout, "\nrunning\n")
	})
	if err != nil {
		t.Fatalf("wait for %s: %v\n%s", stage, err, v.kubectl(t, "", "-n", v.ns, "logs", name).Output)
	}
}

// kill ends hako in a pod with SIGKILL, as want of memory or a node's end does: from here, since nobody in the pod could.
func (v *victims) kill(t *testing.T, name string) {
	t.Helper()
	var object struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal([]byte(v.mustKubectl(t, "", "-n", v.ns, "get", "pod", name, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	files := must[[]string](t)(filepath.Glob("/proc/[0-9]*/cgroup"))
	for _, f := range files {
		groups, _ := os.ReadFile(f) // a process may be gone
		comm, _ := os.ReadFile(filepath.Join(filepath.Dir(f), "comm"))
		underscored := strings.ReplaceAll(object.Metadata.UID, "-", "_") // as with systemd
		if string(comm) != "executor\n" || !strings.Contains(string(groups), object.Metadata.UID) && !strings.Contains(string(groups), underscored) {
			continue
		}
		pid := must[int](t)(strconv.Atoi(filepath.Base(filepath.Dir(f))))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("hako does not run in pod %s", name)
}

// testKilled stops builds at each stage: by deleting their pods, and by SIGKILL. The builds after them use the same claims.
func testKilled(t *testing.T, f *fixture) {
	v := newVictims(t, f)
	for _, c := range []struct {
		name string
		code int
		stop func(t *testing.T, name string)
	}{
		{"deleted", 143, func(t *testing.T, name string) {
			v.mustKubectl(t, "", "-n", v.ns, "delete", "pod", name, "--wait=false")
		}},
		{"killed", 137, v.kill},
	} {
		v.gate.forget()
		for stage := range v.stages(t) {
			v.start(t, stage+"-"+c.name, stage, v.ref(stage, c.name))
		}
		for stage := range v.stages(t) {
			name := stage + "-" + c.name
			v.await(t, name, stage)
			c.stop(t, name)
		}
		for stage := range v.stages(t) {
			if e := v.awaitPod(t, v.ns, stage+"-"+c.name); e.ExitCode != c.code {
				t.Errorf("%s during %s: exit code %d, want %d\n%s", c.name, stage, e.ExitCode, c.code, e.Log)
			}
			if _, err := f.registry.Image(t.Context(), f.registry.Addr+"/held/"+stage+":"+c.name); err == nil {
				t.Errorf("%s during %s: the tag exists", c.name, stage)
			}
		}
		if left := v.left(t); (len(left) > 0) != (c.name == "killed") {
			t.Errorf("%s: left behind: %q", c.name, left)
		}
		next := "next-" + c.name
		v.start(t, next, "push", f.inPod(f.registry.Addr)+"/"+next)
		succeed(t, v.awaitPod(t, v.ns, next))
		if left := v.left(t); len(left) > 0 {
			t.Errorf("%s: left behind, and by the next build as well: %q", c.name, left)
		}
	}
}

// left are the directories of builds in the claim of work directories.
func (v *victims) left(t *testing.T) []string {
	t.Helper()
	return must[[]string](t)(filepath.Glob(filepath.Join(v.work, "hako-*")))
}
