package gitwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// SSH says who we are to ssh servers, and which of them we believe.
type SSH struct {
	// Agent connects to an ssh agent; nil if there is none.
	Agent func(ctx context.Context) (net.Conn, error)
	// KeyFiles are private keys without a passphrase, tried after the agent's. Files that do not exist are left out.
	KeyFiles []string
	// KnownHosts are files as of ssh's known_hosts. Files that do not exist are left out.
	KnownHosts []string
}

const (
	sshPort     = "22"
	defaultUser = "git"
	stderrLimit = 4 << 10
)

// HostKeyError is a server whose key is not known, or is not the one that is.
type HostKeyError struct {
	Host, Fingerprint string
	// Changed says that another key is known.
	Changed bool
}

// Error says what is wrong with the key.
func (e *HostKeyError) Error() string {
	if e.Changed {
		return fmt.Sprintf("the key of the server %s has changed (now %s); somebody may be in between", e.Host, e.Fingerprint)
	}
	return fmt.Sprintf("the key of the server %s is not known (%s)", e.Host, e.Fingerprint)
}

// AuthError is a server that accepts none of our keys.
type AuthError struct {
	User string
	// Tried says where keys were looked for.
	Tried []string
	Err   error
}

// Error says which user was not let in.
func (e *AuthError) Error() string {
	return fmt.Sprintf("log in as %s: %v", e.User, e.Err)
}

// Unwrap returns the cause.
func (e *AuthError) Unwrap() error { return e.Err }

// dialSSH runs git-upload-pack on the server.
func (c *Client) dialSSH(ctx context.Context, a *address) (link, error) {
	client, g, err := c.connectSSH(ctx, a)
	if err != nil {
		return nil, err
	}
	return startUploadPack(client, g, a.path)
}

// connectSSH logs in to the server.
func (c *Client) connectSSH(ctx context.Context, a *address) (*ssh.Client, *idleGuard, error) {
	user := a.user
	if user == "" {
		user = defaultUser
	}
	keys, err := c.options.SSH.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer keys.close()
	hosts, err := c.options.SSH.hosts()
	if err != nil {
		return nil, nil, err
	}
	at := a.hostPort(sshPort)
	config := &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeysCallback(keys.signers)}, Timeout: dialTimeout,
		HostKeyCallback: hosts.check, HostKeyAlgorithms: hosts.algorithms(at),
		ClientVersion: "SSH-2.0-hako",
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, nil, err
	}
	g := &idleGuard{idle: c.options.IdleTimeout, kill: func() { _ = conn.Close() }} // whoever waits on it sees the error
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	sshConn, channels, requests, err := ssh.NewClientConn(guardedConn{conn, g}, at, config)
	if err != nil {
		g.cut()
		if strings.Contains(err.Error(), "unable to authenticate") { // there is no type for it
			err = &AuthError{User: user, Tried: keys.tried, Err: errors.New("the server accepts none of the keys")}
		}
		return nil, nil, err
	}
	return ssh.NewClient(sshConn, channels, requests), g, nil
}

// guardedConn is a connection on which nothing may hang while the two sides make each other's acquaintance.
type guardedConn struct {
	net.Conn
	g *idleGuard
}

// Write watches the network; reads may wait, since ssh reads all the time.
func (c guardedConn) Write(p []byte) (int, error) {
	return c.g.watch(func() (int, error) { return c.Conn.Write(p) })
}

// startUploadPack runs the program on the server.
func startUploadPack(client *ssh.Client, g *idleGuard, path string) (_ link, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, client.Close())
		}
	}()
	session, err := client.NewSession()
	if err != nil {
		return nil, err
	}
	in, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	out, err := session.StdinPipe()
	if err != nil {
		return nil, err
	}
	said := &limitedBuffer{limit: stderrLimit}
	session.Stderr = said
	_ = session.Setenv("GIT_PROTOCOL", "version=2") // servers that do not allow it speak version 0
	if err := session.Start("git-upload-pack " + quoteShell(path)); err != nil {
		return nil, err
	}
	return &streamLink{
		in: &explained{guardedReader{in, g}, session, said}, out: guardedWriter{out, g}, guard: g,
		end: func() error {
			if err := client.Close(); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		},
	}, nil
}

// quoteShell puts s in quotes for the shell of the server.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// explained says at the end of the stream what the server wrote to its standard error.
type explained struct {
	io.Reader
	session *ssh.Session
	said    *limitedBuffer
}

// Read implements io.Reader.
func (e *explained) Read(p []byte) (int, error) {
	n, err := e.Reader.Read(p)
	if n > 0 || !errors.Is(err, io.EOF) {
		return n, err
	}
	// The output has ended; so will the program, and then all of its standard error is there.
	if werr := e.session.Wait(); werr == nil {
		return 0, io.EOF
	}
	if text := clip(e.said.String()); text != "" {
		return 0, &RemoteError{Message: text}
	}
	return 0, io.EOF
}

// limitedBuffer keeps the first bytes that are written to it.
type limitedBuffer struct {
	limit int

	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

// Write never fails.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf.Write(p[:min(len(p), max(0, b.limit-b.buf.Len()))])
	return len(p), nil
}

func (b *limitedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// keyring are our keys for one connection.
type keyring struct {
	agent net.Conn
	keys  []ssh.Signer
	tried []string
}

// open finds the keys.
func (o *SSH) open(ctx context.Context) (*keyring, error) {
	k := &keyring{}
	if o.Agent != nil {
		conn, err := o.Agent(ctx)
		if err == nil {
			k.agent = conn
			k.tried = append(k.tried, "the ssh agent")
		} else {
			k.tried = append(k.tried, fmt.Sprintf("the ssh agent (%v)", reasonOf(err)))
		}
	}
	for _, name := range o.KeyFiles {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		var key ssh.Signer
		if err == nil {
			key, err = ssh.ParsePrivateKey(text)
		}
		var locked *ssh.PassphraseMissingError
		switch {
		case err == nil:
			k.keys = append(k.keys, key)
			k.tried = append(k.tried, name)
		case errors.As(err, &locked):
			k.tried = append(k.tried, name+" (it has a passphrase: use an agent)")
		default:
			k.tried = append(k.tried, fmt.Sprintf("%s (%v)", name, reasonOf(err)))
		}
	}
	return k, nil
}

// reasonOf is what the system said, without the name of the call.
func reasonOf(err error) error {
	var p *os.PathError
	var n *net.OpError
	var c *os.SyscallError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &c):
		return c.Err
	case errors.As(err, &n):
		return n.Err
	}
	return err
}

// signers are all keys, the agent's first.
func (k *keyring) signers() ([]ssh.Signer, error) {
	var out []ssh.Signer
	if k.agent != nil {
		keys, err := agent.NewClient(k.agent).Signers()
		if err != nil {
			return nil, fmt.Errorf("ask the ssh agent: %w", err)
		}
		out = append(out, keys...)
	}
	return append(out, k.keys...), nil
}

func (k *keyring) close() {
	if k.agent != nil {
		_ = k.agent.Close() // nothing was written
	}
}

// knownHosts checks the keys of servers.
type knownHosts struct{ callback ssh.HostKeyCallback }

func (o *SSH) hosts() (*knownHosts, error) {
	var files []string
	for _, f := range o.KnownHosts {
		if _, err := os.Stat(f); err == nil {
			files = append(files, f)
		}
	}
	callback, err := knownhosts.New(files...)
	if err != nil {
		return nil, fmt.Errorf("read the known ssh hosts: %w", err)
	}
	return &knownHosts{callback: callback}, nil
}

func (h *knownHosts) check(host string, remote net.Addr, key ssh.PublicKey) error {
	err := h.callback(host, remote, key)
	var unknown *knownhosts.KeyError
	if errors.As(err, &unknown) {
		return &HostKeyError{Host: host, Fingerprint: ssh.FingerprintSHA256(key), Changed: len(unknown.Want) > 0}
	}
	return err
}

// algorithms are those of the keys that are known of a host, so that the server shows one of them. It is nil if none is known.
func (h *knownHosts) algorithms(host string) []string {
	var unknown *knownhosts.KeyError
	if err := h.callback(host, &net.TCPAddr{}, noKey{}); !errors.As(err, &unknown) {
		return nil
	}
	var out []string
	for _, k := range unknown.Want {
		names := []string{k.Key.Type()}
		if k.Key.Type() == ssh.KeyAlgoRSA {
			names = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
		}
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// noKey is a key that no server has.
type noKey struct{}

// Type implements ssh.PublicKey.
func (noKey) Type() string { return "none" }

// Marshal implements ssh.PublicKey.
func (noKey) Marshal() []byte { return nil }

// Verify implements ssh.PublicKey.
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("it is no key") }
