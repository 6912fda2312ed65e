package gitwire

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"hako/internal/web"
)

// Some hosts of repositories keep things beside them that another protocol fetches. It uses the same logins and connections.

// maxOutput is how much a command on an ssh server may print.
const maxOutput = 1 << 20 // 1 MiB

// Do sends a request with the login that there is for its server, if it has no Authorization header yet. named is the
// repository that somebody asked for. Any status is an answer. Errors hold no secret. The caller closes the body.
func (c *Client) Do(req *http.Request, named *url.URL) (*http.Response, error) {
	if req.Header.Get("Authorization") == "" {
		if _, err := c.authorize(req, named); err != nil {
			return nil, err
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.hide(req.Context(), err)
	}
	return resp, nil
}

// Login is the value of the Authorization header for a URL, from its user or from [Options].Credentials; or "".
func (c *Client) Login(ctx context.Context, u, named *url.URL) (string, error) {
	if u.User != nil {
		password, _ := u.User.Password()
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)), nil
	}
	if c.options.Credentials == nil {
		return "", nil
	}
	return c.options.Credentials(ctx, u, named)
}

// Run runs a program on the ssh server of a repository, with the repository's path and further arguments, and returns what
// it prints. The hint for its errors is [Hint]'s.
func (c *Client) Run(ctx context.Context, remote, program string, args ...string) (_ []byte, err error) {
	fail := func(err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return &Error{Remote: Redact(remote), Err: fmt.Errorf("run %s: %w", program, c.hide(ctx, err))}
	}
	a, err := parseAddress(remote)
	if err == nil && a.scheme != "ssh" {
		err = errors.New("it is not reached by ssh")
	}
	if err != nil {
		return nil, fail(err)
	}
	client, g, err := c.connectSSH(ctx, a)
	if err != nil {
		return nil, fail(err)
	}
	defer g.cut()
	stop := context.AfterFunc(ctx, g.cut)
	defer stop()
	session, err := client.NewSession()
	if err != nil {
		return nil, fail(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		return nil, fail(err)
	}
	said := &limitedBuffer{limit: stderrLimit}
	session.Stderr = said
	command := program + " " + quoteShell(a.path)
	for _, arg := range args {
		command += " " + quoteShell(arg)
	}
	if err := session.Start(command); err != nil {
		return nil, fail(err)
	}
	text, err := io.ReadAll(io.LimitReader(guardedReader{out, g}, maxOutput))
	if werr := session.Wait(); err == nil && werr != nil {
		err = werr
		if text := clip(said.String()); text != "" {
			err = &RemoteError{Message: text}
		}
	}
	if err != nil {
		return nil, fail(err)
	}
	return text, nil
}

// hide is an error without secrets, or the reason why ctx ended.
func (c *Client) hide(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return web.RedactError(err, redact)
}
