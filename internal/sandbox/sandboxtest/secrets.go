package sandboxtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"testing"

	"hako/internal/sandbox"
)

// Secrets checks that no file below dir ever holds a secret of a step: not while the step runs, and not afterwards.
// dir has everything that the engine, which open makes, keeps on a disk.
func Secrets(t *testing.T, dir string, open func(t *testing.T) sandbox.Engine) {
	t.Helper()
	b := newBed(t, open)
	secret := rand.Text()
	var during []string
	s := shouter()
	dial := s.Dial
	s.Dial = func(ctx context.Context) (net.Conn, error) {
		during = holding(t, dir, secret)
		return dial(ctx)
	}
	step := func(args ...string) *sandbox.Step {
		step := b.command(append(args, ";", "ask", "/sock", "now")...)
		step.Mounts = []sandbox.Mount{{Target: "/sock", Source: s}, {Target: "/tmpfs", Source: &sandbox.Tmpfs{}}}
		step.Env = append(step.Env, "TOKEN="+secret)
		step.Files = []sandbox.File{{Path: "/run/secrets/token", Mode: 0o400, Data: []byte(secret)}, {Path: "/data/a", Mode: 0o400, Data: []byte(secret)}}
		return step
	}
	r := b.run(t, b.base, step("cat", "/run/secrets/token", "/data/a", ";", "env", ";", "write", "/tmpfs/copy", secret, ";", "write", "/data/other", "x")).succeeds(t)
	wantOut(t, r, secret+secret+"PATH=/bin\nTOKEN="+secret+"\nNOW")
	if after := holding(t, dir, secret); len(during)+len(after) > 0 {
		t.Errorf("the secret is on the disk: during the step in %v, afterwards in %v", during, after)
	}
	for _, f := range r.Changes {
		if bytes.Contains([]byte(f.Content), []byte(secret)) {
			t.Errorf("the secret is in %s of the layer", f.Path)
		}
	}
	// What a step writes itself is found: the search works.
	b.run(t, r.Stack, step("write", "/data/leak", secret)).succeeds(t)
	if len(during) == 0 {
		t.Error("a secret that a step wrote to its root was not found on the disk")
	}
}

// holding returns the files below dir that hold secret.
func holding(t *testing.T, dir, secret string) []string {
	var found []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // files come and go while a step runs
		}
		if data, err := os.ReadFile(p); err == nil && bytes.Contains(data, []byte(secret)) {
			found = append(found, p)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return found
}
