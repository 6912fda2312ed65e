package gitwire

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"hako/internal/web"
)

// Hint is what a user can do about a failed conversation, one sentence, or "".
func Hint(err error) string {
	var status *StatusError
	var key *HostKeyError
	var auth *AuthError
	var said *RemoteError
	var dns *net.DNSError
	switch {
	case errors.As(err, &status):
		return status.hint()
	case errors.As(err, &key):
		if key.Changed {
			return "If the change is right, remove the old key from known_hosts and add the new one."
		}
		return "Compare the fingerprint with the one that the server's owner publishes, and add the key to ~/.ssh/known_hosts (ssh-keyscan prints it)."
	case errors.As(err, &auth):
		if len(auth.Tried) == 0 {
			return "Give a key: an ssh agent (SSH_AUTH_SOCK), or a file ~/.ssh/id_ed25519."
		}
		return "Keys were looked for in " + strings.Join(auth.Tried, ", ") + "."
	case errors.As(err, &said):
		return "Check the repository's path, and that these credentials may read it."
	case errors.Is(err, errDowngrade):
		return "Use the final address."
	case errors.Is(err, errNotGit), errors.Is(err, errPacket):
		return "Check that the address is one that git clone takes."
	case errors.Is(err, http.ErrSchemeMismatch):
		return "The server speaks plain HTTP: write http://."
	case web.IsTLS(err):
		return "Trust the server's certificate: SSL_CERT_FILE or SSL_CERT_DIR name what is trusted."
	case errors.As(err, &dns):
		return fmt.Sprintf("Check the name %q and that this machine can resolve it.", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED), web.IsNetwork(err):
		return "Check that the server can be reached from here (port, proxy, firewall)."
	}
	return ""
}

func (e *StatusError) hint() string {
	switch {
	case e.Status == http.StatusUnauthorized && !e.Asked, e.Status == http.StatusNotFound && !e.Asked:
		return "If it is private, give credentials: the secret GIT_AUTH_TOKEN, GIT_TOKEN in the environment, or a user in the URL; else check the URL."
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		return "Check that the token or password is valid and may read the repository."
	case e.Status == http.StatusNotFound:
		return "Check the URL, and that the token may read the repository."
	case web.TemporaryStatus(e.Status):
		return "The server has a problem of its own: try again later."
	}
	return ""
}
