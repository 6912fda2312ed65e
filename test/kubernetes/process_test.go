package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// processPatience is how long a test waits for something that a build should do.
const processPatience = 3 * time.Minute

// process is a program while it runs.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

// begin starts a program; it is killed at the end of the test if it still runs.
func begin(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its exit code counts
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has ended, as a rule
		<-p.done
	})
	return p
}

// Write takes what the program writes.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(text)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// await waits until the program has written a text.
func (p *process) await(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), processPatience)
	defer cancel()
	var ended bool
	err := lab.Poll(ctx, 50*time.Millisecond, func() bool {
		select {
		case <-p.done:
			ended = true
		default:
		}
		return ended || strings.Contains(p.output(), text)
	})
	if err != nil || !strings.Contains(p.output(), text) {
		t.Fatalf("%q was not written (ended: %v)\n%s", text, ended, tail(p.output()))
	}
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// anyFailure is an exit code that is not 0.
const anyFailure = -1

// end waits for the program's end, and wants an exit code and texts in what it has written.
func (p *process) end(t *testing.T, code int, says ...string) string {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(processPatience):
		t.Fatalf("does not end\n%s", tail(p.output()))
	}
	out := p.output()
	if got := p.cmd.ProcessState.ExitCode(); got != code && (code != anyFailure || got == 0) {
		t.Errorf("exit code %d, want %d\n%s", got, code, tail(out))
	}
	for _, text := range says {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not said\n%s", text, tail(out))
		}
	}
	return out
}

// begin submits a build of a Dockerfile, whose base is FROM.
func (s *submitter) begin(t *testing.T, dockerfile string, more ...string) *process {
	t.Helper()
	return begin(t, s.args(append([]string{"-f", s.dockerfile(t, dockerfile)}, more...)...)...)
}

// dockerfile writes one that begins with the busybox base.
func (s *submitter) dockerfile(t *testing.T, steps string) string {
	t.Helper()
	name := filepath.Join(s.newDir(t), "Dockerfile")
	if err := os.WriteFile(name, fmt.Appendf(nil, "FROM %s\n%s\n", must[string](t)(s.busybox()), steps), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// count is a step that writes numbers, some ten in a second.
func count(n int) string {
	return fmt.Sprintf("RUN for i in $(seq %d); do echo count-$i-; sleep 0.1; done", n)
}

// wantCount wants each number once and in order.
func wantCount(t *testing.T, out string, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, strconv.Itoa(i+1))
	}
	var got []string
	for _, m := range regexp.MustCompile(`count-(\d+)-`).FindAllStringSubmatch(out, -1) {
		got = append(got, m[1])
	}
	if g, w := strings.Join(got, " "), strings.Join(want, " "); g != w {
		t.Errorf("lines %s\nwant %s\n%s", g, w, tail(out))
	}
}

// job is the name of the only Job in the namespace.
func (s *submitter) job(t *testing.T) string {
	t.Helper()
	names := strings.Fields(s.mustKubectl(t, "", "-n", s.ns, "get", "jobs", "-o", "name"))
	if len(names) != 1 {
		t.Fatalf("Jobs: %q, want one", names)
	}
	return strings.TrimPrefix(names[0], "job.batch/")
}

// pods are the names of the namespace's pods, the oldest first.
func (s *submitter) pods(t *testing.T) []string {
	t.Helper()
	return strings.Fields(s.mustKubectl(t, "", "-n", s.ns, "get", "pods", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].metadata.name}"))
}

// nothingLeft wants no Jobs, pods, Secrets, and no context in the registry.
func (s *submitter) nothingLeft(t *testing.T) {
	t.Helper()
	if left := strings.TrimSpace(s.mustKubectl(t, "", "-n", s.ns, "get", "jobs,pods,secrets", "-o", "name")); left != "" {
		t.Errorf("left behind: %s", left)
	}
	s.noContext(t)
}

// noContext wants no manifests in the repository but those of tags.
func (s *submitter) noContext(t *testing.T) {
	t.Helper()
	manifests := filepath.Join(s.registry.Data, "docker/registry/v2/repositories", s.ns, "_manifests")
	there, err1 := filepath.Glob(filepath.Join(manifests, "revisions/sha256/*/link"))
	tagged, err2 := filepath.Glob(filepath.Join(manifests, "tags/*/index/sha256/*/link"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, link := range tagged {
		known[filepath.Base(filepath.Dir(link))] = true
	}
	for _, link := range there {
		if digest := filepath.Base(filepath.Dir(link)); !known[digest] {
			t.Errorf("left in the registry: %s", digest)
		}
	}
}

// kill sends SIGKILL to the program of the pod's container.
func (s *submitter) kill(t *testing.T, pod string) {
	t.Helper()
	uid := s.mustKubectl(t, "", "-n", s.ns, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup") // the pattern is right
	first := 0
	for _, file := range groups {
		dir := filepath.Dir(file)
		group, err1 := os.ReadFile(file)
		line, err2 := os.ReadFile(filepath.Join(dir, "cmdline"))
		pid, err3 := strconv.Atoi(filepath.Base(dir))
		if errors.Join(err1, err2, err3) != nil || !strings.Contains(strings.ReplaceAll(string(group), "_", "-"), uid) || !bytes.Contains(line, []byte("--metadata-file=")) {
			continue // it is another's, or gone
		}
		if first == 0 || pid < first {
			first = pid
		}
	}
	if first == 0 {
		t.Fatalf("the program of pod %s is not found", pod)
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
