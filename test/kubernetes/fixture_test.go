package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hako/test/lab"
)

// fixture is what the tests share: a cluster, and a registry with hako's images and base images. Bases are made when
// first asked for, once.
type fixture struct {
	// kubeconfig is the cluster's administrator; bridge the address of this machine that pods reach.
	kubeconfig, bridge string
	// registry is open to all. Its Addr is what the node and this machine pull from; pods reach it as f.inPod(Addr).
	registry *lab.Registry
	// hako is the program, for this machine.
	hako string
	// dir is readable by every user, and gone at the end.
	dir string

	busybox func() (string, error)
	debian  func() (string, error)
}

// newFixture finds the cluster, starts the registry and pushes the images that pods run; it skips the test if there is no cluster.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{kubeconfig: os.Getenv("HAKO_TEST_KUBECONFIG"), bridge: os.Getenv("HAKO_TEST_BRIDGE")}
	if f.kubeconfig == "" {
		t.Skip("needs a cluster: test/kubernetes/run brings one up and sets HAKO_TEST_KUBECONFIG")
	}
	if err := f.missing(); err != nil {
		t.Fatal(err)
	}
	f.dir = must[string](t)(os.MkdirTemp("", "hako-kubernetes-"))
	t.Cleanup(func() {
		if err := os.RemoveAll(f.dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(f.dir, 0o755); err != nil { //nolint:gosec // pods of any user read what is below
		t.Fatal(err)
	}
	f.registry = f.startRegistry(t, lab.RegistryOptions{})
	images := f.newDir(t)
	f.hako = filepath.Join(images, "hako")
	if err := lab.MakeImages(t.Context(), images, "executor", "nonroot", "warmer", "debug"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"executor", "nonroot", "warmer", "debug"} {
		must[string](t)(lab.Must(t.Context(), f.hako, "push", "--insecure", filepath.Join(images, name+".tar"), "--destination", f.image(name)))
	}
	f.awaitBridge(t)
	f.expose(t, f.registry.Addr)
	base := func(name string, push func(context.Context, string) error) func() (string, error) {
		return sync.OnceValues(func() (string, error) {
			ref := "/library/" + name
			return f.inPod(f.registry.Addr) + ref, push(context.WithoutCancel(t.Context()), f.registry.Addr+ref)
		})
	}
	f.busybox, f.debian = base("busybox:1", lab.PushBusybox), base("debian:bookworm", lab.PushDebian)
	return f
}

// missing says what the tests need and this machine lacks.
func (f *fixture) missing() error {
	if f.bridge == "" {
		return errors.New("HAKO_TEST_BRIDGE has to name the address of this machine that pods reach")
	}
	if os.Getuid() != 0 {
		return errors.New("needs root: directories of other users")
	}
	for tool, pkg := range map[string]string{
		"docker-registry": "docker-registry", "mmdebstrap": "mmdebstrap", "busybox": "busybox-static", "make": "make", "git": "git", "kubectl": "",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s (apt-get install %s): %w", tool, pkg, err)
		}
	}
	return nil
}

// image is the reference by which the node pulls one of hako's images: executor, nonroot, warmer or debug.
func (f *fixture) image(name string) string {
	ref := f.registry.Addr + "/hako/"
	switch name {
	case "warmer":
		return ref + "warmer:latest"
	case "executor":
		return ref + "executor:latest"
	}
	return ref + "executor:" + name
}

// inPod is how pods, and this machine, reach what listens at an address on loopback and was exposed.
func (f *fixture) inPod(addr string) string {
	_, port, _ := strings.Cut(addr, ":")
	return net.JoinHostPort(f.bridge, port)
}

// startRegistry runs a registry until the test ends.
func (f *fixture) startRegistry(t *testing.T, o lab.RegistryOptions) *lab.Registry {
	t.Helper()
	r := must[*lab.Registry](t)(lab.StartRegistryWith(t.Context(), f.newDir(t), o))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// expose makes what listens at addr, host:port of loopback, reachable from pods at the same port of the bridge, until the
// test ends. It returns the address for pods.
func (f *fixture) expose(t *testing.T, addr string) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", f.inPod(addr)))
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { forward(c, addr) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// forward connects c with addr until both directions have ended.
func forward(c net.Conn, addr string) {
	defer c.Close() //nolint:errcheck // its end is no news
	to, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer to.Close() //nolint:errcheck // likewise
	var group sync.WaitGroup
	for _, pair := range [][2]*net.TCPConn{{c.(*net.TCPConn), to.(*net.TCPConn)}, {to.(*net.TCPConn), c.(*net.TCPConn)}} {
		group.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // whoever hangs up ends it
			_ = pair[0].CloseWrite()         // gone already, or told so
		})
	}
	group.Wait()
}

// newDir makes a directory below the fixture's, readable by all.
func (f *fixture) newDir(t *testing.T) string {
	t.Helper()
	return must[string](t)(lab.NewDir(f.dir))
}

// writeFiles writes files, by their paths, into a new directory that everybody may read.
func (f *fixture) writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := f.newDir(t)
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil { //nolint:gosec // pods of any user read it
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil { //nolint:gosec // likewise
			t.Fatal(err)
		}
	}
	return dir
}

// awaitBridge runs a pod if the bridge does not exist yet: some network plugins make it with the first one.
func (f *fixture) awaitBridge(t *testing.T) {
	t.Helper()
	listen := func() bool {
		l, err := net.Listen("tcp", net.JoinHostPort(f.bridge, "0"))
		if err != nil {
			return false
		}
		return l.Close() == nil
	}
	if listen() {
		return
	}
	ns := f.namespace(t, "restricted")
	f.apply(t, ns, pod{Name: "first", Args: []string{"version"}}.manifest(t, f))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := lab.Poll(ctx, 200*time.Millisecond, listen); err != nil {
		t.Fatalf("wait for the address %s: %v", f.bridge, err)
	}
}

// must is for set-up that every check after it needs.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// tail is the end of a long output.
func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// kubectl runs kubectl as the administrator, with stdin if it is not empty.
func (f *fixture) kubectl(t *testing.T, stdin string, args ...string) lab.Result {
	t.Helper()
	c := lab.Command{Args: append([]string{"kubectl", "--kubeconfig", f.kubeconfig}, args...)}
	if stdin != "" {
		c.Stdin = bytes.NewReader([]byte(stdin))
	}
	return must[lab.Result](t)(lab.Run(context.WithoutCancel(t.Context()), c))
}

// mustKubectl is kubectl with success; it returns what was printed to standard output.
func (f *fixture) mustKubectl(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	r := f.kubectl(t, stdin, args...)
	if r.ExitCode != 0 {
		t.Fatalf("kubectl %s: exit code %d\n%s", strings.Join(args, " "), r.ExitCode, tail(r.Output))
	}
	return r.Stdout
}
