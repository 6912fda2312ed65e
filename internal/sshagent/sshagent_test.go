package sshagent_test

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"hako/internal/diag"
	"hako/internal/sshagent"
)

// keyFile writes a new private key and returns the file and the public key.
func keyFile(t *testing.T, passphrase string) (string, ssh.PublicKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return file, key
}

// socket serves an agent with a new key, and returns the socket and the key.
func socket(t *testing.T) (string, agent.Agent) {
	t.Helper()
	keys := agent.NewKeyring()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: private, Comment: "served"}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "agent") // a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, c) }()
		}
	}()
	return path, keys
}

// connect opens an agent and connects to it as a step does.
func connect(t *testing.T, c sshagent.Config) agent.ExtendedAgent {
	t.Helper()
	a, err := sshagent.Open([]sshagent.Config{c})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := a.Dial(c.ID)(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return agent.NewClient(conn)
}

func TestKeysSign(t *testing.T) {
	t.Parallel()
	file, key := keyFile(t, "")
	other, _ := keyFile(t, "")
	c := connect(t, sshagent.Config{ID: "x", Paths: []string{file, other}})
	keys, err := c.List()
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v %v, want two keys", keys, err)
	}
	sig, err := c.Sign(key, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Verify([]byte("text"), sig); err != nil {
		t.Error(err)
	}
}

func TestNobodyChangesAnAgent(t *testing.T) {
	t.Parallel()
	file, key := keyFile(t, "")
	sock, behind := socket(t)
	for _, c := range []sshagent.Config{{ID: "keys", Paths: []string{file}}, {ID: "socket", Paths: []string{sock}}} {
		a := connect(t, c)
		_, private, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		_, ext := a.Extension("query", nil)
		for name, err := range map[string]error{
			"add": a.Add(agent.AddedKey{PrivateKey: private}), "remove": a.Remove(key), "remove all": a.RemoveAll(),
			"lock": a.Lock([]byte("x")), "unlock": a.Unlock([]byte("x")), "extension": ext,
		} {
			if err == nil {
				t.Errorf("%s: %s succeeds", c.ID, name)
			}
		}
		if keys, err := a.List(); err != nil || len(keys) != 1 {
			t.Errorf("%s: %v %v", c.ID, keys, err)
		}
	}
	if keys, err := behind.List(); err != nil || len(keys) != 1 {
		t.Errorf("%v %v", keys, err)
	}
}

func TestRawSocket(t *testing.T) {
	t.Parallel()
	sock, behind := socket(t)
	if err := connect(t, sshagent.Config{ID: "x", Paths: []string{sock}, Raw: true}).RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if keys, err := behind.List(); err != nil || len(keys) != 0 {
		t.Errorf("%v %v", keys, err)
	}
}

func TestBadAgents(t *testing.T) {
	t.Parallel()
	file, _ := keyFile(t, "")
	locked, _ := keyFile(t, "secret")
	sock, _ := socket(t)
	text := filepath.Join(t.TempDir(), "text")
	big := filepath.Join(t.TempDir(), "big")
	if err := errors.Join(os.WriteFile(text, []byte("no key"), 0o600), os.WriteFile(big, make([]byte, 200<<10), 0o600)); err != nil {
		t.Fatal(err)
	}
	one := func(paths ...string) []sshagent.Config { return []sshagent.Config{{ID: "x", Paths: paths}} }
	for name, c := range map[string]struct {
		configs []sshagent.Config
		want    string
	}{
		"none":        {one(), "SSH_AUTH_SOCK is not set"},
		"missing":     {one(filepath.Join(t.TempDir(), "none")), "no such file"},
		"text":        {one(text), "read key"},
		"big":         {one(big), "too big"},
		"directory":   {one(t.TempDir()), "read key"},
		"passphrase":  {one(locked), "passphrase"},
		"two sockets": {one(sock, sock), "cannot be combined"},
		"socket, key": {one(sock, file), "cannot be combined"},
		"raw key":     {[]sshagent.Config{{ID: "x", Paths: []string{file}, Raw: true}}, "only a socket"},
		"same id":     {append(one(file), one(file)...), "given twice"},
	} {
		_, err := sshagent.Open(c.configs)
		var d *diag.Error
		if !errors.As(err, &d) || !strings.Contains(d.What, c.want) || d.Hint == "" {
			t.Errorf("%s: got %v, want %s and a hint", name, err, c.want)
		}
	}
}

func TestUnknownAgent(t *testing.T) {
	t.Parallel()
	a, err := sshagent.Open(nil)
	if err != nil || a.Dial("default") != nil {
		t.Errorf("%v", err)
	}
}
