package gittree_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"hako/internal/diag"
	"hako/internal/gittree"
	"hako/internal/gittree/gittest"
	"hako/internal/gitwire"
)

func TestDaemon(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "r", history()...)
	base := "git://" + gittest.Daemon(t, w.dir) + "/"
	middle := w.head(t, "r", "main")
	for _, ref := range []string{"", "v1", "side", middle, middle[:8]} {
		tr := w.fetch(t, gittree.Spec{Remote: base + "r.git", Ref: ref})
		if !strings.Contains(list(t, tr), "dir/x 0755 \"run\"") {
			t.Errorf("%q: %s", ref, list(t, tr))
		}
	}
	_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: base + "none.git"})
	if err == nil || !strings.Contains(err.Error(), "the server says: access denied or repository not exported") {
		t.Error(err)
	}
}

// sshWorld is a world that is served by ssh.
type sshWorld struct {
	*world
	host    string // host:port
	login   string
	private ed25519.PrivateKey
	keyFile string
	known   string
}

// sshServer serves the world by ssh. With plain, it is a server in this process; else the program sshd.
func sshServer(t *testing.T, plain, v0 bool) *sshWorld {
	t.Helper()
	w := &sshWorld{world: newWorld(t, nil)}
	hostKey, _, hostFile := gittest.Key(t, w.dir, "host")
	var mine ssh.Signer
	mine, w.private, w.keyFile = gittest.Key(t, w.dir, "mine")
	w.known = filepath.Join(w.dir, "known_hosts")
	if plain {
		l := gittest.Listen(t)
		w.login, w.host = "git", l.Addr().String()
		gittest.Accept(t, l, func(c net.Conn) { w.serveSSH(c, hostKey, mine.PublicKey(), v0) })
	} else {
		w.login, w.host = gittest.SSHD(t, w.dir, hostFile, mine.PublicKey())
	}
	gittest.KnownHosts(t, w.known, w.host, hostKey.PublicKey())
	return w
}

// serveSSH serves one connection.
func (w *sshWorld) serveSSH(c net.Conn, host ssh.Signer, allowed ssh.PublicKey, v0 bool) {
	config := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if m.User() != "git" || string(k.Marshal()) != string(allowed.Marshal()) {
			return nil, errors.New("no")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close() // the other side may have closed it
	go ssh.DiscardRequests(requests)
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		w.serveChannel(ch, requests, v0)
	}
}

// serveChannel runs what is asked for with a shell, as sshd does.
func (w *sshWorld) serveChannel(ch ssh.Channel, requests <-chan *ssh.Request, v0 bool) {
	env := w.env()
	for r := range requests {
		switch r.Type {
		case "env":
			var kv struct{ Key, Value string }
			_ = ssh.Unmarshal(r.Payload, &kv)
			if !v0 {
				env = append(env, kv.Key+"="+kv.Value)
			}
			_ = r.Reply(!v0, nil)
		case "exec":
			var c struct{ Command string }
			_ = ssh.Unmarshal(r.Payload, &c)
			_ = r.Reply(true, nil)
			cmd := exec.Command("sh", "-c", c.Command)
			cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = w.dir, env, ch, ch.Stderr()
			in, err := cmd.StdinPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err == nil {
				go func() {
					_, _ = io.Copy(in, ch)
					_ = in.Close()
				}()
				err = cmd.Wait()
			}
			status := uint32(0)
			if err != nil {
				status = 1
			}
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = ch.Close()
			return
		}
	}
}

func TestSSH(t *testing.T) {
	t.Parallel()
	for _, v0 := range []bool{false, true} {
		w := sshServer(t, true, v0)
		w.repository(t, "r", history()...)
		o := w.options(t, gitwire.Options{SSH: gitwire.SSH{KeyFiles: []string{w.dir + "/none", w.keyFile}, KnownHosts: []string{w.known, w.dir + "/none"}}})
		middle := w.head(t, "r", "main~1")
		for _, s := range []gittree.Spec{
			{}, {Ref: "v1"}, {Ref: middle}, {Ref: middle[:8]}, {Ref: w.head(t, "r", "side")},
		} {
			s.Remote = "ssh://git@" + w.host + w.dir + "/r.git"
			tr, err := gittree.Fetch(t.Context(), o, s)
			if err != nil {
				t.Fatalf("%+v: %v", s, diag.Format(err))
			}
			if !strings.Contains(list(t, tr), "dir/x 0755 \"run\"") {
				t.Errorf("%+v: %s", s, list(t, tr))
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSSHAgent(t *testing.T) {
	t.Parallel()
	w := sshServer(t, true, false)
	w.repository(t, "r", "write a x", "commit")
	socket := filepath.Join(w.dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: w.private}); err != nil {
		t.Fatal(err)
	}
	gittest.Accept(t, l, func(c net.Conn) { _ = agent.ServeAgent(keys, c) })
	o := w.options(t, gitwire.Options{SSH: gitwire.SSH{Agent: dial(socket), KnownHosts: []string{w.known}}})
	tr, err := gittree.Fetch(t.Context(), o, gittree.Spec{Remote: "ssh://" + w.host + w.dir + "/r.git"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

func TestSSHErrors(t *testing.T) {
	t.Parallel()
	w := sshServer(t, true, false)
	w.repository(t, "r", "write a x", "commit")
	_, _, wrong := gittest.Key(t, w.dir, "wrong")
	other, _, _ := gittest.Key(t, w.dir, "other")
	changed := filepath.Join(w.dir, "changed")
	_, port, _ := net.SplitHostPort(w.host)
	line := fmt.Sprintf("[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(other.PublicKey()))
	if err := os.WriteFile(changed, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	good := gitwire.SSH{KeyFiles: []string{w.keyFile}, KnownHosts: []string{w.known}}
	for name, tc := range map[string]struct {
		ssh        gitwire.SSH
		path       string
		what, hint string
	}{
		"unknown server": {gitwire.SSH{KeyFiles: good.KeyFiles}, "/r.git", "is not known (SHA256:", "ssh-keyscan"},
		"other key":      {gitwire.SSH{KeyFiles: good.KeyFiles, KnownHosts: []string{changed}}, "/r.git", "has changed (now SHA256:", "remove the old key"},
		"no key":         {gitwire.SSH{KnownHosts: good.KnownHosts}, "/r.git", "log in as git: the server accepts none of the keys", "Give a key"},
		"wrong key":      {gitwire.SSH{KeyFiles: []string{wrong}, KnownHosts: good.KnownHosts}, "/r.git", "accepts none of the keys", "Keys were looked for in " + wrong},
		"no agent":       {gitwire.SSH{Agent: dial(w.dir + "/none"), KnownHosts: good.KnownHosts}, "/r.git", "accepts none of the keys", "the ssh agent (no such file or directory)"},
		"no repository":  {good, "/none.git", "the server says: fatal: ", "Check the repository's path"},
		"shell":          {good, "/r.git'; echo hacked >&2; '", "does not appear to be a git repository", ""},
	} {
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{SSH: tc.ssh}), gittree.Spec{Remote: "ssh://git@" + w.host + w.dir + tc.path})
		if !errors.As(err, new(*diag.Error)) {
			t.Errorf("%s: %v is no diag.Error", name, err)
			continue
		}
		if text := diag.Format(err); !strings.Contains(text, tc.what) || !strings.Contains(text, tc.hint) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// TestSSHD is the real program.
func TestSSHD(t *testing.T) {
	t.Parallel()
	w := sshServer(t, false, false)
	w.repository(t, "r", history()...)
	o := w.options(t, gitwire.Options{SSH: gitwire.SSH{KeyFiles: []string{w.keyFile}, KnownHosts: []string{w.known}}})
	for _, ref := range []string{"", "v1", w.head(t, "r", "main~1")} {
		tr, err := gittree.Fetch(t.Context(), o, gittree.Spec{Remote: "ssh://" + w.login + "@" + w.host + w.dir + "/r.git", Ref: ref})
		if err != nil {
			t.Fatal(diag.Format(err))
		}
		if !strings.Contains(list(t, tr), "dir/x 0755 \"run\"") {
			t.Errorf("%q: %s", ref, list(t, tr))
		}
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	}
}

func dial(socket string) func(context.Context) (net.Conn, error) {
	return func(context.Context) (net.Conn, error) { return net.Dial("unix", socket) }
}
