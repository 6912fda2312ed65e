package privilege

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"hako/test/lab"
)

// plainUser is an id that owns nothing on any machine, so that all it writes can be found.
const plainUser = 61234

// level is a set of privileges that a build may be given.
type level struct {
	name string
	// docker are the flags of docker run; nil means on the machine itself.
	docker []string
	// uid runs the build; a volume belongs to it.
	uid int
	// volume mounts a directory of the machine at /tmp.
	volume bool
	// native says that steps run natively here; elsewhere they run in the sentry.
	native bool
}

// engine is what a build says of its steps.
func (l level) engine() string {
	if l.native {
		return "RUN steps run natively"
	}
	return "RUN steps run in the sentry"
}

// restricted is what Kubernetes' "restricted" Pod Security Standard leaves, and a read-only root file system.
func restricted(more ...string) []string {
	return append([]string{"--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"}, more...)
}

func restrictedLevels() []level {
	return []level{
		{name: "restricted-noexec-tmpfs", docker: restricted("--tmpfs", "/tmp"), uid: 1000},
		{name: "restricted-volume", docker: restricted(), uid: 1000, volume: true},
		{name: "restricted-nothing-writable", docker: restricted(), uid: 1000},
	}
}

func volumeLevel() level { return restrictedLevels()[1] }

func defaultLevel() level { return level{name: "container-root", docker: []string{}} }

func allLevels() []level {
	return append(restrictedLevels(),
		level{name: "restricted-exec-tmpfs", docker: restricted("--tmpfs", "/tmp:exec"), uid: 1000},
		level{name: "restricted-seccomp-unconfined", docker: restricted("--security-opt", "seccomp=unconfined"), uid: 1000, volume: true},
		level{name: "any-uid-group-root", docker: []string{"--user", "123456:0", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}, uid: 123456, volume: true},
		defaultLevel(),
		level{name: "container-root-seccomp-unconfined", docker: []string{"--security-opt", "seccomp=unconfined"}},
		level{name: "container-root-sys-admin", docker: []string{"--cap-add", "SYS_ADMIN"}, volume: true, native: true},
		level{name: "container-root-sys-admin-no-volume", docker: []string{"--cap-add", "SYS_ADMIN"}},
		level{name: "container-root-unmasked", docker: []string{"--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"}, volume: true, native: true},
		level{name: "machine-user", uid: plainUser},
		level{name: "machine-root", native: true},
	)
}

// job is one build.
type job struct {
	// context is a directory of the machine; destination an image reference.
	context, destination string
	// args are more of hako's arguments; docker more of docker run's, for levels in a container.
	args, docker []string
}

// outcome is how a build ended and what it left behind.
type outcome struct {
	lab.Result
	// left are files found in the work directory afterwards, if it outlives the build.
	left []string
	// writes are changes elsewhere, if the level allows any.
	writes []string
	// peak is the memory of a build in a container.
	peak memoryPeak
}

// build runs hako with job j at level l.
func (f *fixture) build(t *testing.T, l level, j job) outcome {
	t.Helper()
	before := snapshot(t, j.context)
	run := f.buildInContainer
	if l.docker == nil {
		run = f.buildOnMachine
	}
	out, err := run(t, l, j)
	if err != nil {
		t.Fatal(err)
	}
	if diff := before.diff(snapshot(t, j.context)); diff != "" {
		t.Errorf("the build changed its context: %s", diff)
	}
	return out
}

// mustBuild is build for jobs that have to succeed and leave nothing behind.
func (f *fixture) mustBuild(t *testing.T, l level, j job) outcome {
	t.Helper()
	out := f.build(t, l, j)
	if out.ExitCode != 0 {
		t.Fatalf("exit code %d after %s\n%s", out.ExitCode, out.Wall, tail(out.Output))
	}
	if len(out.left) > 0 {
		t.Errorf("left in the work directory: %q", out.left)
	}
	if len(out.writes) > 0 {
		t.Errorf("written outside of the work directory: %q", out.writes)
	}
	return out
}

// start runs hako in a container at level l and returns it with the directory behind its volume, if it has one.
func (f *fixture) start(t *testing.T, l level, j job) (*lab.Container, string) {
	t.Helper()
	image := must[string](t)(f.executor())
	args := []string{"--network", "host", "-v", j.context + ":/workspace:ro"}
	args = append(append(args, l.docker...), j.docker...)
	volume := ""
	if l.volume {
		volume = f.newDir(t)
		if err := os.Chown(volume, l.uid, l.uid); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-v", volume+":/tmp")
	}
	args = append(args, image, "--context", "dir:///workspace", "--destination", j.destination, "--insecure", "--insecure-pull")
	c := must[*lab.Container](t)(lab.StartContainer(t.Context(), append(args, j.args...)...))
	t.Cleanup(func() {
		if err := c.Remove(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return c, volume
}

func (f *fixture) buildInContainer(t *testing.T, l level, j job) (outcome, error) {
	c, volume := f.start(t, l, j)
	peak, stop := watchMemory(t, c.PID)
	r, err := c.Wait(t.Context())
	stop()
	out := outcome{Result: r, left: list(t, volume), peak: *peak}
	if err != nil {
		return out, err
	}
	writes, err := c.Writes(t.Context())
	for _, w := range writes {
		if !mountPoint(w) {
			out.writes = append(out.writes, w)
		}
	}
	return out, err
}

// mountPoint says whether a line of docker diff is about a mount that Docker made itself, about a directory
// that the build made its work directory in and left empty again, or about base layers that builds of one container share.
func mountPoint(change string) bool {
	if strings.HasPrefix(change, "A /kaniko/hako-layers") {
		return true
	}
	for _, p := range []string{"A /workspace", "A /tmp", "C /tmp", "C /kaniko", "A /kaniko/.docker", "C /kaniko/.docker"} {
		if change == p {
			return true
		}
	}
	return false
}

// buildOnMachine runs the binary itself: as root where only the work directory can be written, as a plain user whose
// files are searched for afterwards.
func (f *fixture) buildOnMachine(t *testing.T, l level, j job) (outcome, error) {
	bin := must[string](t)(f.binary())
	work := f.newDir(t)
	if err := os.Chown(work, l.uid, l.uid); err != nil {
		return outcome{}, err
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TMPDIR=" + work}
	args := []string{"setpriv", "--reuid", strconv.Itoa(l.uid), "--regid", strconv.Itoa(l.uid), "--clear-groups"}
	if l.uid == 0 {
		const script = `mount --bind "$0" "$0" && mount -o remount,bind,ro / && exec "$@"`
		args = []string{"unshare", "--mount", "sh", "-c", script, work}
	}
	before := filepath.Join(f.newDir(t), "before")
	if err := os.WriteFile(before, nil, 0o600); err != nil {
		return outcome{}, err
	}
	args = append(args, bin, "build", "--context", "dir://"+j.context, "--destination", j.destination, "--insecure", "--insecure-pull")
	r, err := lab.Run(t.Context(), lab.Command{Args: append(args, j.args...), Dir: "/", Env: env})
	if err != nil {
		return outcome{}, err
	}
	out := outcome{Result: r, left: list(t, work)}
	if l.uid != 0 {
		// What is older is another's. The directories of the tests are not searched: this build's work directory is among them.
		find := []string{"find", "/", "-xdev", "-path", f.dir, "-prune", "-o", "-path", j.context, "-prune", "-o", "-uid", strconv.Itoa(l.uid), "-cnewer", before, "-print"}
		found, err := lab.Run(t.Context(), lab.Command{Args: find})
		if err != nil {
			return out, err
		}
		out.writes = strings.Fields(found.Stdout)
	}
	return out, nil
}

// list names everything below dir; nothing if dir is empty.
func list(t *testing.T, dir string) []string {
	t.Helper()
	if dir == "" {
		return nil
	}
	var names []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err == nil && p != dir {
			names = append(names, strings.TrimPrefix(p, dir))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// files is a directory as it was at a moment: by path, everything that a change of any kind would change.
type files map[string]string

func snapshot(t *testing.T, dir string) files {
	t.Helper()
	s := files{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(p)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		s[p] = fmt.Sprintf("%s %d:%d %d bytes, changed %d.%09d", st.Mode(), sys.Uid, sys.Gid, st.Size(), sys.Ctim.Sec, sys.Ctim.Nsec)
		if d.Type().IsRegular() && st.Size() < 1<<20 {
			data, err := os.ReadFile(p)
			s[p] += fmt.Sprintf(" %x", sha256.Sum256(data))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s files) diff(now files) string {
	var lines []error
	for p, was := range s {
		if now[p] != was {
			lines = append(lines, fmt.Errorf("%s: was %q, is %q", p, was, now[p]))
		}
	}
	for p := range now {
		if _, ok := s[p]; !ok {
			lines = append(lines, fmt.Errorf("%s is new", p))
		}
	}
	if len(lines) == 0 {
		return ""
	}
	return errors.Join(lines...).Error()
}

// tail is the end of a long output.
func tail(s string) string {
	const most = 6000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}
