package privilege

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/test/lab"
)

// runContext makes a context with one RUN on the small base.
func runContext(t *testing.T, f *fixture, run string) string {
	t.Helper()
	return f.writeContext(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nRUN %s\n", must[string](t)(f.busybox()), run),
	})
}

// exists says whether the registry has the tag ref.
func exists(t *testing.T, ref string) bool {
	t.Helper()
	_, err := remote.Head(must[name.Reference](t)(name.ParseReference(ref, name.Insecure)))
	return err == nil
}

// testExitCode wants a failing step's exit code as the container's, 255 for a signal, and no tag.
func testExitCode(t *testing.T, f *fixture) {
	for _, tt := range []struct {
		name, run string
		want      int
		says      string
	}{
		{"step's code", "exit 7", 7, "Dockerfile:2"},
		{"false", "false", 1, "Dockerfile:2"},
		{"not found", "no-such-program", 127, "no-such-program"},
		{"killed", "kill -9 $$", 255, "Dockerfile:2"},
		{"crashed", "kill -SEGV $$", 255, "Dockerfile:2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ref := f.registry.Addr + "/exit:" + strings.Map(onlyLetters, tt.name)
			out := f.build(t, volumeLevel(), job{context: runContext(t, f, tt.run), destination: ref})
			if out.ExitCode != tt.want || !strings.Contains(out.Output, tt.says) {
				t.Errorf("exit code %d, want %d and %q in\n%s", out.ExitCode, tt.want, tt.says, tail(out.Output))
			}
			if len(out.left) > 0 {
				t.Errorf("left in the work directory: %q", out.left)
			}
			if exists(t, ref) {
				t.Errorf("%s was pushed", ref)
			}
		})
	}
}

func onlyLetters(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}

// awaitStep waits until a step of the build in c has printed step-has-begun.
func awaitStep(t *testing.T, c *lab.Container) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Poll(ctx, 100*time.Millisecond, func() bool {
		logs, err := c.Logs(ctx)
		return err == nil && slices.ContainsFunc(strings.Split(logs, "\n"), func(line string) bool {
			return strings.HasSuffix(strings.TrimSpace(line), "step-has-begun")
		})
	})
	if err != nil {
		logs, _ := c.Logs(t.Context()) // only makes the message better
		t.Fatalf("the step did not begin: %v\n%s", err, tail(logs))
	}
}

// testStop wants docker stop to end a build within seconds, without a kill, a tag or a file left.
func testStop(t *testing.T, f *fixture) {
	const grace = 10 * time.Second
	for _, l := range []level{volumeLevel(), defaultLevel()} {
		t.Run(l.name, func(t *testing.T) {
			ref := f.registry.Addr + "/stop:" + l.name
			dir := runContext(t, f, "echo step-has-begun; sleep 600 & trap '' TERM; sleep 600; sleep 600")
			c, volume := f.start(t, l, job{context: dir, destination: ref})
			awaitStep(t, c)
			begin := time.Now()
			if err := c.Stop(t.Context(), grace); err != nil {
				t.Fatal(err)
			}
			took := time.Since(begin)
			r := must[lab.Result](t)(c.Wait(t.Context()))
			t.Logf("stopped after %s with exit code %d", took, r.ExitCode)
			if took >= grace || r.ExitCode == 137 || r.ExitCode == 0 {
				t.Errorf("stopped after %s with exit code %d, want less than %s and neither 0 nor 137\n%s", took, r.ExitCode, grace, tail(r.Output))
			}
			if left := list(t, volume); len(left) > 0 {
				t.Errorf("left in the work directory: %q", left)
			}
			if exists(t, ref) {
				t.Errorf("%s was pushed", ref)
			}
		})
	}
}

// lootScript gathers what a step can read of the builder: files at its known places, every process's environment,
// command line, root directory, open files and memory.
const lootScript = `{ cat /kaniko/.docker/config.json; find / -xdev -name config.json -exec cat {} +; env;
for p in /proc/[0-9]*; do cat $p/environ $p/cmdline $p/mountinfo; cat $p/root/kaniko/.docker/config.json $p/cwd/config.json;
ls -la $p/root/ $p/root/kaniko $p/fd; for d in $p/fd/*; do test -f $d && head -c 100000 $d; done; done;
ls -la /kaniko /workspace /tmp /run /dev/shm; cat /proc/mounts /proc/self/mountinfo; ls -R /tmp; ps; } > /loot 2>&1 < /dev/null; wc -l < /loot`

// testCredentials builds with a registry that wants a password and looks for it in everything a step can read.
func testCredentials(t *testing.T, f *fixture) {
	password, token := "password-"+rand.Text(), "token-"+rand.Text()
	private := f.startRegistry(t, "builder", password)
	auth := base64.StdEncoding.EncodeToString([]byte("builder:" + password))
	config := f.writeContext(t, map[string]string{
		"config.json": fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, private.Addr, auth),
	})
	if err := os.WriteFile(filepath.Join(config, "token"), []byte(token), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, l := range []level{volumeLevel(), restrictedLevels()[2], defaultLevel()} {
		t.Run(l.name, func(t *testing.T) {
			ref := private.Addr + "/secret:" + l.name
			j := job{context: runContext(t, f, "<<END\n"+lootScript+"\nEND"), destination: ref}
			j.docker = []string{"-v", config + ":/kaniko/.docker:ro", "-e", "BUILDER_TOKEN=" + token}
			out := f.mustBuild(t, l, j)
			loot := f.readFile(t, private, ref, "/loot")
			for _, secret := range []string{password, auth, token} {
				if strings.Contains(loot, secret) || strings.Contains(out.Output, secret) {
					t.Errorf("a step could read %q of the builder:\n%s", secret, tail(loot))
				}
			}
			if !strings.Contains(loot, "PATH=") {
				t.Errorf("the step found nothing at all, not even its own environment: the check is broken\n%s", tail(loot))
			}
		})
	}
}

// testConfinement looks at the processes of a build from outside, while a step runs: whoever breaks out of the step into
// the sandbox's process must find no environment, no way to gain privileges, and a builder that it cannot read.
func testConfinement(t *testing.T, f *fixture) {
	token := "token-" + rand.Text()
	for _, l := range []level{volumeLevel(), defaultLevel()} {
		t.Run(l.name, func(t *testing.T) {
			j := job{context: runContext(t, f, "echo step-has-begun; sleep 600"), destination: f.registry.Addr + "/confinement:1"}
			j.docker = []string{"-e", "BUILDER_TOKEN=" + token}
			c, _ := f.start(t, l, j)
			awaitStep(t, c)
			if owner := must[os.FileInfo](t)(os.Stat(fmt.Sprintf("/proc/%d/environ", c.PID))).Sys().(*syscall.Stat_t).Uid; owner != 0 {
				t.Errorf("the builder's environment belongs to uid %d: it can be dumped", owner)
			}
			children := descendants(c.PID)
			if len(children) == 0 {
				t.Fatal("the builder has no child while a step runs")
			}
			for _, pid := range children {
				checkConfined(t, pid, token)
				if outer, inner := filters(t, c.PID), filters(t, pid); inner <= outer {
					t.Errorf("process %d of the sandbox has %d seccomp filters, the builder has %d: it installed none", pid, inner, outer)
				}
			}
			if err := c.Stop(t.Context(), 10*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

// filters is how many seccomp filters a process has, those of its container included.
func filters(t *testing.T, pid int) int64 {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))
	_, rest, _ := strings.Cut(text, "Seccomp_filters:")
	line, _, _ := strings.Cut(rest, "\n")
	return must[int64](t)(strconv.ParseInt(strings.TrimSpace(line), 10, 64))
}

func checkConfined(t *testing.T, pid int, token string) {
	t.Helper()
	environ := must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)))
	if strings.Contains(string(environ), token) {
		t.Errorf("process %d of the sandbox has the builder's environment: %q", pid, environ)
	}
	status := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))))
	if !strings.Contains(status, "NoNewPrivs:\t1\n") {
		t.Errorf("process %d of the sandbox may gain privileges:\n%s", pid, status)
	}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is well formed
	for _, l := range links {
		target, err := os.Readlink(l)
		if err == nil && (strings.Contains(target, ".docker") || strings.Contains(target, "/workspace")) {
			t.Errorf("process %d of the sandbox has %s open", pid, target)
		}
	}
}

// testMemory builds layers of 2 GiB with 512 MiB of memory and wants the builder's own part to stay small.
func testMemory(t *testing.T, f *fixture) {
	if testing.Short() {
		t.Skip("writes gigabytes; leave out -short")
	}
	const most = 100 << 20
	busybox := must[string](t)(f.busybox())
	contexts := []struct{ name, dir string }{
		{"RUN", runContext(t, f, "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/part bs=1M count=32 2>/dev/null; for j in 1 2 3 4 5 6 7 8; do cat /part; done; done > /big && rm /part && ls -l /big")},
		{"COPY", f.writeContext(t, map[string]string{"Dockerfile": "FROM " + busybox + "\nCOPY big /\n", "big": ""})},
	}
	writeBig(t, filepath.Join(contexts[1].dir, "big"))
	for _, c := range contexts {
		t.Run(c.name, func(t *testing.T) {
			ref := f.registry.Addr + "/memory:" + strings.ToLower(c.name)
			con, volume := f.start(t, volumeLevel(), job{context: c.dir, destination: ref, docker: []string{"-m", "512m"}})
			peak, stop := watchMemory(t, con.PID)
			r := must[lab.Result](t)(con.Wait(t.Context()))
			stop()
			t.Logf("built in %s; peak anonymous memory: builder %d MiB, its sandbox %d MiB", r.Wall, peak.builder>>20, peak.others>>20)
			if r.ExitCode != 0 {
				t.Fatalf("exit code %d\n%s", r.ExitCode, tail(r.Output))
			}
			if peak.builder > most || peak.builder == 0 {
				t.Errorf("the builder's anonymous memory reached %d bytes, want at most %d", peak.builder, most)
			}
			if left := list(t, volume); len(left) > 0 {
				t.Errorf("left in the work directory: %q", left)
			}
			tree := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
			if got := tree["/big"].Size; got != 2<<30 {
				t.Errorf("/big has %d bytes, want %d", got, 2<<30)
			}
		})
	}
}
