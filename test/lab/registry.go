package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
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
}

// StartRegistry runs Debian's docker-registry with its storage in dir, without authentication if user is empty.
// Close ends it.
func StartRegistry(ctx context.Context, dir, user, password string) (*Registry, error) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, fmt.Errorf("find a registry: %w (apt-get install docker-registry)", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &Registry{Addr: fmt.Sprintf("127.0.0.1:%d", port), User: user, Password: password, log: filepath.Join(dir, "log")}
	config := filepath.Join(dir, "config.yml")
	text, err := r.config(dir)
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

func (r *Registry) config(dir string) (string, error) {
	text := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: %q}
`, filepath.Join(dir, "data"), r.Addr)
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
		resp, err := http.Get("http://" + r.Addr + "/v2/")
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // only the answer counts
		return resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized
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
