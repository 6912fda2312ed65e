package build

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"hako/internal/contextsource"
	"hako/internal/gitwire"
	"hako/internal/web"
)

// logins finds out who we are to the servers of files and of git repositories.
type logins struct {
	secrets func() secrets
	getenv  func(string) string
	// trusted are the servers that the user named on the command line ("https://host:port"): only they get what the
	// environment holds. A Dockerfile can name any server.
	trusted map[string]bool
}

// forFile is the Authorization header for a file: BuildKit's secrets, or else .netrc.
func (l *logins) forFile(_ context.Context, u *url.URL) (string, error) {
	for _, s := range []struct{ name, prefix string }{{"HTTP_AUTH_HEADER_", ""}, {"HTTP_AUTH_TOKEN_", "Bearer "}} {
		value, err := l.secret(s.name + u.Hostname())
		if value != "" || err != nil {
			return prefixed(s.prefix, value), err
		}
	}
	return l.netrc(u)
}

func prefixed(prefix, value string) string {
	if value == "" {
		return ""
	}
	return prefix + value
}

// forGit is the Authorization header for a git server: BuildKit's secrets, for the server or for any; then kaniko's variables;
// then .netrc. Those that are for no server in particular go to that of the repository which was named, not to those of
// submodules and redirects.
func (l *logins) forGit(_ context.Context, u, named *url.URL) (string, error) {
	same := web.SameOrigin(u, named)
	for _, s := range []struct {
		name  string
		token bool
		any   bool
	}{
		{name: "GIT_AUTH_HEADER." + u.Host}, {name: "GIT_AUTH_TOKEN." + u.Host, token: true},
		{name: "GIT_AUTH_HEADER", any: true}, {name: "GIT_AUTH_TOKEN", token: true, any: true},
	} {
		if s.any && !same {
			continue
		}
		value, err := l.secret(s.name)
		if err != nil {
			return "", err
		}
		if value != "" && s.token {
			value = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+value))
		}
		if value != "" {
			return value, nil
		}
	}
	if l.trusted[web.Origin(u)] {
		if login := l.environment(); login != (web.Login{}) {
			return login.Authorization(), nil
		}
	}
	return l.netrc(u)
}

// environment is the login of kaniko's variables: a token is a user without a password.
func (l *logins) environment() web.Login {
	if token := l.getenv("GIT_TOKEN"); token != "" {
		return web.Login{User: token}
	}
	return web.Login{User: l.getenv("GIT_USERNAME"), Password: l.getenv("GIT_PASSWORD")}
}

// secret is the value of a secret of that ID, without the end of its line; empty if there is none.
func (l *logins) secret(id string) (string, error) {
	s := l.secrets()
	if !s.Has(id) {
		return "", nil
	}
	data, err := s.Read(id)
	if err != nil {
		return "", err
	}
	value := strings.TrimRight(string(data), "\r\n")
	if strings.ContainsAny(value, "\r\n\x00") {
		return "", fmt.Errorf("the secret %s has several lines", id)
	}
	return value, nil
}

// netrc looks into the file that NETRC names, or else into ~/.netrc. It is read each time: downloads are few.
func (l *logins) netrc(u *url.URL) (string, error) {
	path := l.getenv("NETRC")
	if home := l.getenv("HOME"); path == "" && home != "" {
		path = filepath.Join(home, ".netrc")
	}
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read credentials: %w", err)
	}
	return web.FindLogin(string(text), u.Hostname()).Authorization(), nil
}

// trust notes the servers among places that the user named.
func (l *logins) trust(places ...string) {
	for _, p := range places {
		if strings.HasPrefix(p, "git://") {
			p, _ = contextsource.PullURL(p, l.getenv)
		} else if strings.HasPrefix(p, contextsource.GitHub) {
			p = "https://" + p
		}
		if u, err := url.Parse(p); err == nil && u.Host != "" {
			l.trusted[web.Origin(u)] = true
		}
	}
}

// ssh are our keys and the servers that we know: the agent that --ssh names, or that of the environment; the usual files.
func (b *builder) ssh() gitwire.SSH {
	known, keys := []string{"/etc/ssh/ssh_known_hosts"}, []string(nil)
	if path := b.env.Getenv("SSH_KNOWN_HOSTS"); path != "" {
		known = append(known, path)
	}
	if home := b.env.Getenv("HOME"); home != "" {
		dir := filepath.Join(home, ".ssh")
		known = append(known, filepath.Join(dir, "known_hosts"))
		for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
			keys = append(keys, filepath.Join(dir, name))
		}
	}
	out := gitwire.SSH{KnownHosts: known, KeyFiles: keys, Agent: b.agents.Dial("default")}
	if socket := b.env.Getenv("SSH_AUTH_SOCK"); out.Agent == nil && socket != "" {
		out.Agent = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	return out
}
