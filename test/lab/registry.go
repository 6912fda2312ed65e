package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// Registry is a running CNCF distribution registry on a loopback port.
type Registry struct {
	// Addr is host:port, to be put before repository names.
	Addr string
	// User and Password are asked for by every request; empty without authentication.
	User, Password string

	cmd *exec.Cmd
	log string
	// Data is the directory of the content.
	Data string
}

// RegistryOptions say what a registry wants of its clients. The zero value is plain HTTP for everybody.
type RegistryOptions struct {
	// User and Password are wanted if User is not empty; a Token instead if it is not nil.
	User, Password string
	Token          *TokenServer
	// Certificate and Key are PEM files for TLS. ClientCA, if not empty, has to have signed every client's certificate.
	Certificate, Key, ClientCA string
	// Remote makes it a pull-through mirror of the registry at that URL.
	Remote string
	// Data is where another registry has its content, to be shared; empty means a directory of its own.
	Data string
}

// StartRegistry is StartRegistryWith a user or, if user is empty, without authentication.
func StartRegistry(ctx context.Context, dir, user, password string) (*Registry, error) {
	return StartRegistryWith(ctx, dir, RegistryOptions{User: user, Password: password})
}

// StartRegistryWith runs Debian's docker-registry with its storage in dir. Close ends it.
func StartRegistryWith(ctx context.Context, dir string, o RegistryOptions) (*Registry, error) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("find a registry: %w (apt-get install docker-registry)", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: fmt.Sprintf("127.0.0.1:%d", port), User: o.User, Password: o.Password, log: filepath.Join(dir, "log"), Data: o.Data}
	if r.Data == "" {
		r.Data = filepath.Join(dir, "data")
	}
	config := filepath.Join(dir, "config.yml")
	text, err := r.config(dir, o)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configure the registry: %w", err)
	}
	log, err := os.Create(r.log)
	if err != nil {
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	r.cmd = exec.Command(bin, "serve", config)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the registry: %w", err)
	}
	return r, r.awaitReady(ctx)
}

// Close ends the registry and waits for it.
func (r *Registry) Close() error {
	if err := r.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("end the registry: %w", err)
	}
	_ = r.cmd.Wait() // it was killed, which Wait reports
	return nil
}

func (r *Registry) config(dir string, o RegistryOptions) (string, error) {
	text := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http:
  addr: %q
`, r.Data, r.Addr)
	if o.Certificate != "" {
		text += fmt.Sprintf("  tls: {certificate: %s, key: %s", o.Certificate, o.Key)
		if o.ClientCA != "" {
			text += fmt.Sprintf(", clientcas: [%s]", o.ClientCA)
		}
		text += "}\n"
	}
	if o.Remote != "" {
		text += fmt.Sprintf("proxy: {remoteurl: %q}\n", o.Remote)
	}
	if o.Token != nil {
		bundle := filepath.Join(dir, "token.pem")
		if err := os.WriteFile(bundle, o.Token.Certificate(), 0o600); err != nil {
			return "", fmt.Errorf("configure the registry: %w", err)
		}
		return text + fmt.Sprintf("auth: {token: {realm: %q, service: %q, issuer: %q, rootcertbundle: %s}}\n", o.Token.URL, tokenService, tokenIssuer, bundle), nil
	}
	if r.User == "" {
		return text, nil
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost)
	if err != nil {
		return "", fmt.Errorf("configure the registry: %w", err)
	}
	users := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(users, fmt.Appendf(nil, "%s:%s\n", r.User, hash), 0o600); err != nil {
		return "", fmt.Errorf("configure the registry: %w", err)
	}
	return text + fmt.Sprintf("auth: {htpasswd: {realm: lab, path: %s}}\n", users), nil
}

func (r *Registry) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := Poll(ctx, 50*time.Millisecond, func() bool {
		c, err := net.Dial("tcp", r.Addr)
		if err != nil {
			return false
		}
		_ = c.Close() // only the answer counts
		return true
	})
	if err != nil {
		text, _ := os.ReadFile(r.log) // only makes the message better
		return fmt.Errorf("wait for the registry at %s: %w\n%s", r.Addr, err, text)
	}
	return nil
}

// freePort finds a loopback TCP port that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close() //nolint:errcheck // nothing was sent
	return l.Addr().(*net.TCPAddr).Port, nil
}
