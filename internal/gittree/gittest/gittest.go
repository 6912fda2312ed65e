// Package gittest runs git's own servers for tests: http-backend, daemon, and upload-pack behind sshd. They serve the
// repositories below a directory, which is also the home of the programs.
package gittest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Env is the environment of git for a test.
func Env(dir string) []string {
	return []string{
		"HOME=" + dir, "PATH=" + dir + ":" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@d",
		"GIT_AUTHOR_DATE=2005-06-07T08:09:10Z", "GIT_COMMITTER_DATE=2005-06-07T08:09:10Z",
	}
}

// Configure writes git's configuration into dir. It skips the test if there is no git.
func Configure(t testing.TB, dir string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	const config = "[safe]\n\tdirectory = *\n[protocol \"file\"]\n\tallow = always\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
	if err := os.WriteFile(filepath.Join(dir, ".gitconfig"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Git runs git in the directory at below dir, and returns what it prints.
func Git(t testing.TB, dir, at string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = filepath.Join(dir, at), Env(dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// Handler is git's http server, http-backend.
func Handler(dir string) http.Handler {
	git, err := exec.LookPath("git")
	if err != nil {
		return http.NotFoundHandler()
	}
	return &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Root: "/", Env: append(Env(dir), "GIT_PROJECT_ROOT="+dir, "GIT_HTTP_EXPORT_ALL=1"),
	}
}

// Accept serves connections until the test ends.
func Accept(t testing.TB, l net.Listener, serve func(net.Conn)) {
	t.Helper()
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close() // the other side may have closed it
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	})
}

// Listen listens on a port of this machine.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// run serves a connection with a program, as inetd does.
func run(t testing.TB, c net.Conn, cmd *exec.Cmd) {
	t.Helper()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close() // a duplicate
	cmd.Stdin, cmd.Stdout = f, f
	_ = cmd.Run() // it fails if the other side hangs up
}

// Daemon serves dir by git's own protocol: a program git-daemon for each connection. It returns host:port.
func Daemon(t testing.TB, dir string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(Git(t, dir, "", "--exec-path"), "git-daemon")); err != nil {
		t.Skip("needs git daemon")
	}
	l := Listen(t)
	Accept(t, l, func(c net.Conn) {
		cmd := exec.Command("git", "daemon", "--inetd", "--export-all", "--base-path="+dir)
		cmd.Env = Env(dir)
		run(t, c, cmd)
	})
	return l.Addr().String()
}

// Key makes a key and the file of it.
func Key(t testing.TB, dir, name string) (ssh.Signer, ed25519.PrivateKey, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer, private, path
}

// KnownHosts writes the file of known hosts for a server on this machine.
func KnownHosts(t testing.TB, path, host string, key ssh.PublicKey) {
	t.Helper()
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(key))
	if err := os.WriteFile(path, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
}

// SSHD runs the program sshd for each connection. It lets one key in, as the user who runs the test, and returns
// that user and host:port.
func SSHD(t testing.TB, dir, hostKeyFile string, allowed ssh.PublicKey) (login, host string) {
	t.Helper()
	const program = "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("needs sshd")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	authorized, config := filepath.Join(dir, "authorized_keys"), filepath.Join(dir, "sshd_config")
	text := "AuthorizedKeysFile " + authorized + "\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nAcceptEnv GIT_PROTOCOL\nHostKey " + hostKeyFile +
		"\nPidFile none\nSetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n"
	err = errors.Join(os.WriteFile(authorized, ssh.MarshalAuthorizedKey(allowed), 0o600), os.WriteFile(config, []byte(text), 0o600), os.MkdirAll("/run/sshd", 0o755))
	if err != nil {
		t.Skipf("needs sshd, and to be root: %v", err)
	}
	l := Listen(t)
	Accept(t, l, func(c net.Conn) { run(t, c, exec.Command(program, "-i", "-e", "-f", config)) })
	return me.Username, l.Addr().String()
}
