// Package sshagent lets steps use ssh keys without having them: it connects them to an agent that runs on this machine,
// or to one in this process that holds keys from files. A step can list the keys and sign with them, and nothing else.
package sshagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"hako/internal/diag"
)

// Config is one agent.
type Config struct {
	// ID is what a RUN --mount=type=ssh calls it.
	ID string
	// Paths are one socket of a running agent, or files with private keys.
	Paths []string
	// Raw connects steps to the socket itself, whatever listens there.
	Raw bool
}

// maxKeySize bounds a file with a key, in bytes; BuildKit has the same bound.
const maxKeySize = 100 << 10

var (
	errReadOnly = errors.New("a step cannot change the agent")
	errTooBig   = errors.New("the file is too big for a key")
)

// Agents are the agents of one build. They may be used from many goroutines.
type Agents struct {
	dials map[string]func(ctx context.Context) (net.Conn, error)
}

// Open reads the keys and looks for the sockets of configs. What the user can mend is a *diag.Error.
func Open(configs []Config) (*Agents, error) {
	a := &Agents{dials: map[string]func(context.Context) (net.Conn, error){}}
	for _, c := range configs {
		if a.dials[c.ID] != nil {
			return nil, &diag.Error{What: fmt.Sprintf("--ssh %s is given twice", c.ID), Hint: "Give each agent an id of its own."}
		}
		dial, err := c.open()
		if err != nil {
			return nil, err
		}
		a.dials[c.ID] = dial
	}
	return a, nil
}

// Dial returns how to connect to the agent with this ID, or nil if there is none.
func (a *Agents) Dial(id string) func(ctx context.Context) (net.Conn, error) { return a.dials[id] }

func (c *Config) open() (func(context.Context) (net.Conn, error), error) {
	fail := func(hint, format string, args ...any) error {
		return &diag.Error{What: "--ssh " + c.ID + ": " + fmt.Sprintf(format, args...), Hint: hint}
	}
	if len(c.Paths) == 0 {
		return nil, fail("Start an agent (ssh-agent), or name a key or a socket: --ssh ID=PATH.", "there is no agent: SSH_AUTH_SOCK is not set")
	}
	keys := agent.NewKeyring()
	socket := ""
	for _, p := range c.Paths {
		fi, err := os.Stat(p)
		if err != nil {
			return nil, fail("Check the path.", "%v", err)
		}
		if fi.Mode()&os.ModeSocket != 0 {
			socket = p
			continue
		}
		if err := addKey(keys, p); err != nil {
			hint := "Give a file with a private key, or the socket of an agent."
			if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
				hint = "Add the key to an agent with ssh-add, and give the agent's socket."
			}
			return nil, fail(hint, "read key %s: %v", p, err)
		}
	}
	switch {
	case socket != "" && len(c.Paths) > 1:
		return nil, fail("Give each agent an id of its own.", "a socket cannot be combined with others")
	case c.Raw && socket == "":
		return nil, fail("Leave raw out.", "only a socket can be raw")
	case c.Raw:
		return func(ctx context.Context) (net.Conn, error) { return connect(ctx, socket) }, nil
	case socket != "":
		return func(ctx context.Context) (net.Conn, error) { return serveSocket(ctx, socket) }, nil
	}
	return func(context.Context) (net.Conn, error) { return serve(readOnly{keys}, nil), nil }, nil
}

// addKey adds the private key in the file p.
func addKey(keys agent.Agent, p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeySize+1))
	if err == nil && len(text) > maxKeySize {
		err = errTooBig
	}
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		return err
	}
	return keys.Add(agent.AddedKey{PrivateKey: key})
}

func connect(ctx context.Context, socket string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the ssh agent: %w", err)
	}
	return c, nil
}

// serveSocket connects to a running agent, of which a step sees only what it may.
func serveSocket(ctx context.Context, socket string) (net.Conn, error) {
	c, err := connect(ctx, socket)
	if err != nil {
		return nil, err
	}
	return serve(readOnly{agent.NewClient(c)}, c), nil
}

// serve answers one connection with a until it ends, and then closes behind, if that is not nil.
func serve(a agent.Agent, behind io.Closer) net.Conn {
	near, far := net.Pipe()
	go func() { // it ends with the connection, which whoever got it closes
		_ = agent.ServeAgent(a, far) // the end of a connection is an error for it
		_ = far.Close()
		if behind != nil {
			_ = behind.Close()
		}
	}()
	return near
}

// readOnly is an agent that signs, and cannot be changed.
type readOnly struct{ agent.Agent }

var _ agent.ExtendedAgent = readOnly{}

// SignWithFlags implements agent.ExtendedAgent.
func (r readOnly) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	if x, ok := r.Agent.(agent.ExtendedAgent); ok {
		return x.SignWithFlags(key, data, flags)
	}
	return r.Sign(key, data)
}

// Add implements agent.Agent.
func (readOnly) Add(agent.AddedKey) error { return errReadOnly }

// Remove implements agent.Agent.
func (readOnly) Remove(ssh.PublicKey) error { return errReadOnly }

// RemoveAll implements agent.Agent.
func (readOnly) RemoveAll() error { return errReadOnly }

// Lock implements agent.Agent.
func (readOnly) Lock([]byte) error { return errReadOnly }

// Unlock implements agent.Agent.
func (readOnly) Unlock([]byte) error { return errReadOnly }

// Extension implements agent.ExtendedAgent.
func (readOnly) Extension(string, []byte) ([]byte, error) { return nil, agent.ErrExtensionUnsupported }
