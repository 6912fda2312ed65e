package kubernetes

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"

	"hako/test/lab"
)

// forgery is a line of the log that hako might have written, as far as its form goes.
const forgery = `{"time":"2026-01-01T00:00:00Z","level":"error","type":"error","msg":"FORGED","error":"FORGED"}`

// testStream sends contexts through standard input: the image is that of a context in a registry, also if the connection breaks on
// the way. Its steps try to forge events and the result.
func testStream(t *testing.T, f *fixture) {
	ns := f.namespace(t, "restricted")
	base := must[string](t)(f.busybox())
	blob := make([]byte, 8<<20)
	rand.New(rand.NewSource(1)).Read(blob) //nolint:gosec // any bytes that do not compress
	forge := "cat /forged; cat /forged >&2; for f in /proc/1/fd/1 /proc/1/fd/2 /dev/console; do cat /forged > $f || true; done; cat /forged > /dev/termination-log"
	dir := f.writeFiles(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nCOPY . /c\nCOPY --from=docs . /docs\nCOPY forged /\nRUN %s\nRUN test -f /docs/a && ! test -e /docs/b\n", base, forge),
		"forged":     forgery, "blob": string(blob), "left-out": "x", ".dockerignore": "left-out",
	})
	plain := f.writeFiles(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nCOPY . /c\nCOPY forged /\nRUN %s\n", base, forge), "forged": forgery, "blob": string(blob),
	})
	docs := f.writeFiles(t, map[string]string{"a": "a", "b": "b", ".dockerignore": "b"})
	ref := f.inPod(f.registry.Addr) + "/streamed:1"
	made := func(c lab.Command, kubeconfig string, args ...string) (string, lab.Result) {
		t.Helper()
		file := filepath.Join(f.newDir(t), "metadata")
		c.Args = append([]string{
			f.hako, "submit", "--kubeconfig", kubeconfig, "--namespace", ns, "--executor-image", f.image("executor"), "--storage=1Gi", "--log-format=text",
			"--insecure", "--insecure-pull", "--source-date-epoch=1000000000", "--rewrite-timestamp", "-d", ref, "--metadata-file", file,
		}, args...)
		r := must[lab.Result](t)(lab.Run(t.Context(), c))
		if r.ExitCode != 0 {
			t.Fatalf("%q: exit code %d: %s", args, r.ExitCode, r.Output)
		}
		var m map[string]any
		if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file)), &m); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(m["containerimage.digest"]), r
	}
	if got, _ := made(lab.Command{}, f.kubeconfig, dir, "--build-context", "docs="+docs); got != digest(t, f.registry, ref) {
		t.Errorf("the metadata says %s, and the registry has %s", got, digest(t, f.registry, ref))
	}
	want, r := made(lab.Command{}, f.kubeconfig, plain)
	if n := strings.Count(r.Output, "FORGED"); n == 0 || strings.Contains(r.Output, "error building image") {
		t.Errorf("%d times FORGED: %s", n, tail(r.Output))
	}
	archive := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: []string{"tar", "-C", plain, "-cz", "."}}))
	cut := f.cutting(t, 4<<20)
	for name, test := range map[string]struct {
		input, kubeconfig, says string
		args                    []string
	}{
		"directory":                 {"", f.kubeconfig, "", []string{plain, "--context-stdin"}},
		"archive":                   {archive.Stdout, f.kubeconfig, "", []string{"-", "--context-stdin"}},
		"archive, registry":         {archive.Stdout, f.kubeconfig, "", []string{"-"}},
		"the connection breaks off": {"", cut, "did not get the whole context; the cluster makes another", []string{plain, "--context-stdin"}},
	} {
		c := lab.Command{Stdin: strings.NewReader(test.input)}
		if got, r := made(c, test.kubeconfig, test.args...); got != want || !strings.Contains(r.Output, test.says) {
			t.Errorf("%s: %s, want %s and %q: %s", name, got, want, test.says, tail(r.Output))
		}
	}
}

// cutting returns a kubeconfig whose connections go through a proxy that breaks one off, once, when it has sent so many bytes.
func (f *fixture) cutting(t *testing.T, after int64) string {
	t.Helper()
	text := must[[]byte](t)(os.ReadFile(f.kubeconfig))
	server := regexp.MustCompile(`https://([0-9.:]+)`).FindSubmatch(text)
	if server == nil {
		t.Fatalf("no server in %s", f.kubeconfig)
	}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var group sync.WaitGroup
	var once atomic.Bool
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				cutForward(ctx, c, string(server[1]), func(n int64) bool { return n > after && once.CompareAndSwap(false, true) })
			})
		}
	})
	t.Cleanup(func() {
		stop()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	})
	path := filepath.Join(f.newDir(t), "kubeconfig")
	if err := os.WriteFile(path, bytes.ReplaceAll(text, server[0], []byte("https://"+l.Addr().String())), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// cutForward connects c with addr until either ends, or cut says so of how many bytes were sent.
func cutForward(ctx context.Context, c net.Conn, addr string, cut func(sent int64) bool) {
	defer c.Close() //nolint:errcheck // its end is no news
	to, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	hangUp := func() { _, _ = c.Close(), to.Close() } // likewise
	defer context.AfterFunc(ctx, hangUp)()
	var group sync.WaitGroup
	group.Go(func() {
		defer hangUp()
		_, _ = io.Copy(c, to) // whoever hangs up ends it
	})
	group.Go(func() {
		defer hangUp()
		buffer, sent := make([]byte, 64<<10), int64(0)
		for {
			n, err := c.Read(buffer)
			if sent += int64(n); err != nil || cut(sent) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	})
	group.Wait()
}

// testEnds submits builds that fail, and looks at what their pods leave behind: the error, and none of what steps have printed.
func testEnds(t *testing.T, f *fixture) {
	ns := f.namespace(t, "restricted")
	base := must[string](t)(f.busybox())
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := pem.EncodeToMemory(must[*pem.Block](t)(ssh.MarshalPrivateKey(private, "")))
	dir := f.writeFiles(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK\nRUN echo Unspeakable-7; exit 7\n", base),
		"much":       fmt.Sprintf("FROM %s\nRUN head -c 300000000 /dev/urandom > /x\n", base), "key": string(key),
	})
	for job, test := range map[string]struct {
		args       []string
		code       int
		says, left string
	}{
		"fails": {[]string{"--ssh", "default=" + filepath.Join(dir, "key")}, 7, "command exited with code 7", "Dockerfile:3: RUN: command exited with code 7"},
		"much":  {[]string{"-f", filepath.Join(dir, "much"), "--storage=100Mi"}, 1, "--storage", "more than the 100 MiB of --work-dir-size"},
	} {
		r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: append([]string{
			f.hako, "submit", dir, "--kubeconfig", f.kubeconfig, "--namespace", ns, "--executor-image", f.image("executor"), "--log-format=text",
			"--insecure", "--insecure-pull", "--job-name", job, "-d", f.inPod(f.registry.Addr) + "/ends:1",
		}, test.args...)}))
		if r.ExitCode != test.code || !strings.Contains(r.Output, test.says) {
			t.Errorf("%s: exit code %d, want %d and %q: %s", job, r.ExitCode, test.code, test.says, tail(r.Output))
		}
		described := f.mustKubectl(t, "", "-n", ns, "describe", "pods", "-l", "batch.kubernetes.io/job-name="+job)
		if !strings.Contains(described, test.left) || strings.Contains(described, "Unspeakable-7\n") {
			t.Errorf("%s: its pod does not say %q: %s", job, test.left, described)
		}
	}
}
