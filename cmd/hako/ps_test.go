package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What others on the machine can see of a build with "ps" while a step runs has no secret in it.
func TestSecretsAreInNoProcessList(t *testing.T) {
	t.Parallel()
	image := base(t)
	for _, engine := range []string{"auto", "sentry"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			lookForSecrets(t, image, engine)
		})
	}
}

func lookForSecrets(t *testing.T, image, engine string) {
	t.Helper()
	dir := t.TempDir()
	text := "FROM " + image + "\nRUN --mount=type=secret,id=token echo began && sleep 600\n"
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "Unspeakable-8f3a"
	out := &watched{text: "began", seen: make(chan struct{})}
	var logged bytes.Buffer
	cmd := as("hako", "build", dir, "--no-push", "--kaniko-dir", t.TempDir(), "--sandbox", engine, "--secret", "id=token,env=TOKEN")
	cmd.Args[0], cmd.Dir, cmd.Stdout, cmd.Stderr = "hako", dir, out, &logged
	cmd.Env = append(cmd.Env, "TOKEN="+secret, "GIT_TOKEN="+secret, `DOCKER_AUTH_CONFIG={"auths":{"h":{"username":"u","password":"`+secret+`"}}}`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-out.seen:
	case err := <-ended:
		t.Fatalf("hako ended with %v:\n%s", err, logged.String())
	case <-time.After(time.Minute):
		t.Error("the step has not begun")
	}
	all := family(t, cmd.Process.Pid)
	if len(all) < 2 {
		t.Errorf("only the processes %v were found", all)
	}
	for _, pid := range all {
		proc := filepath.Join("/proc", strconv.Itoa(pid))
		line, _ := os.ReadFile(filepath.Join(proc, "cmdline")) // a process may have ended
		environment := []byte(nil)
		if pid != cmd.Process.Pid {
			environment, _ = os.ReadFile(filepath.Join(proc, "environ")) // the kernel may refuse it, which is as well
		}
		if bytes.Contains(line, []byte(secret)) || bytes.Contains(environment, []byte(secret)) {
			t.Errorf("a secret is in the command line or the environment of process %d: %q", pid, line)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.As(err, new(*exec.ExitError)) {
		t.Error(err)
	}
	if strings.Contains(logged.String(), secret) {
		t.Error("a secret is in the log")
	}
}

// family lists a process and all that descend from it.
func family(t *testing.T, root int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // has ended
		}
		// After the name, which is in brackets and may have anything in it, come the state and the parent.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			t.Fatal(err)
		}
		children[parent] = append(children[parent], pid)
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}
