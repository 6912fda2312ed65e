package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"hako/internal/diag"
	"hako/internal/web"
)

// Login asks the registry at host whether it takes the user and the password. It stores nothing; see StoreCredentials.
func (c *Client) Login(ctx context.Context, host, user, password string) error {
	host = ServerHost(host)
	repo, err := name.NewRepository(host+"/login", name.WeakValidation)
	if err != nil {
		return &diag.Error{What: fmt.Sprintf("%q is no registry", host), Hint: "Give its host name, with a port if it has one: registry.example:5000."}
	}
	r := c.Repository(repo, Push)
	what := "log in to " + familiarHost(r.Host())
	client, err := r.authenticate(ctx, authn.FromConfig(authn.AuthConfig{Username: user, Password: password}))
	if err != nil {
		return loginError(what, redactError(err))
	}
	base := url.URL{Scheme: r.repo.Scheme(), Host: r.Host(), Path: "/v2/"}
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base.String(), nil)
	if err != nil {
		return loginError(what, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return loginError(what, redactError(err))
	}
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return loginError(what, err)
	}
	web.Discard(resp.Body)
	return nil
}

func loginError(what string, err error) error {
	e := &diag.Error{What: what, Cause: err}
	switch {
	case denied(err):
		e.Hint = "Check the user and the password, and that the password or token has not expired."
	default:
		e.Hint = "Check the registry's name and port; --insecure-registry allows plain HTTP, --registry-certificate another authority."
	}
	return e
}

// ServerHost is the host of a registry as people write it: with a scheme or a path, or empty for Docker Hub.
func ServerHost(s string) string {
	host, _, _ := strings.Cut(canonicalKey(s), "/")
	if host == "" {
		return canonicalHost("docker.io")
	}
	return host
}

// configKey is what docker calls a registry in its configuration.
func configKey(host string) string { return serverOf(ServerHost(host)) }

// StoreCredentials puts a user and a password into config.json in dir, as "docker login" does: with the program that the
// file names for that, or else in the file itself. It says where they are now.
func StoreCredentials(ctx context.Context, dir, host, user, password string) (string, error) {
	key := configKey(host)
	return edit(dir, func(c *configFile) (string, error) {
		if helper := c.helper(key); helper != "" {
			text, err := json.Marshal(map[string]string{"ServerURL": key, "Username": user, "Secret": password})
			if err != nil {
				return "", err
			}
			return "docker-credential-" + helper, tellHelper(ctx, helper, "store", text)
		}
		entry, err := json.Marshal(map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))})
		if err != nil {
			return "", err
		}
		c.auths[key] = entry
		return c.path, nil
	})
}

// RemoveCredentials undoes StoreCredentials. It says where they were, or nothing if there were none.
func RemoveCredentials(ctx context.Context, dir, host string) (string, error) {
	key := configKey(host)
	return edit(dir, func(c *configFile) (string, error) {
		where := ""
		if helper := c.helper(key); helper != "" {
			if err := tellHelper(ctx, helper, "erase", []byte(key)); err != nil {
				return "", err
			}
			where = "docker-credential-" + helper
		}
		for _, k := range []string{key, ServerHost(host)} {
			if _, ok := c.auths[k]; ok {
				delete(c.auths, k)
				where = c.path
			}
		}
		return where, nil
	})
}

// configFile is a config.json of which everything stays that we do not know.
type configFile struct {
	path        string
	all, auths  map[string]json.RawMessage
	credsStore  string
	credHelpers map[string]string
}

// helper is the name of the program that keeps the credentials of a registry; empty for none.
func (c *configFile) helper(key string) string {
	for k, h := range c.credHelpers {
		if ServerHost(k) == ServerHost(key) {
			return h
		}
	}
	return c.credsStore
}

// edit lets change change config.json in dir.
func edit(dir string, change func(*configFile) (string, error)) (string, error) {
	c := &configFile{path: filepath.Join(dir, "config.json"), all: map[string]json.RawMessage{}, auths: map[string]json.RawMessage{}}
	failed := func(err error) error {
		return &diag.Error{What: "change registry credentials in " + c.path, Cause: err, Hint: "Point DOCKER_CONFIG to a directory that this user may write to."}
	}
	data, err := os.ReadFile(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", failed(err)
	}
	if len(bytes.TrimSpace(data)) > 0 {
		if err := json.Unmarshal(data, &c.all); err != nil {
			return "", failed(jsonError(err))
		}
	}
	for field, into := range map[string]any{"auths": &c.auths, "credsStore": &c.credsStore, "credHelpers": &c.credHelpers} {
		if raw, ok := c.all[field]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return "", failed(jsonError(err))
			}
		}
	}
	if c.auths == nil { // it was null
		c.auths = map[string]json.RawMessage{}
	}
	where, err := change(c)
	if err != nil {
		return "", failed(err)
	}
	if where != c.path {
		return where, nil
	}
	if c.all["auths"], err = json.Marshal(c.auths); err != nil {
		return "", failed(err)
	}
	if data, err = json.MarshalIndent(c.all, "", "\t"); err != nil {
		return "", failed(err)
	}
	if err := writePrivate(c.path, append(data, '\n')); err != nil {
		return "", failed(err)
	}
	return where, nil
}

// writePrivate replaces a file such that nobody sees half of it; where the directory does not let it, or the file is a
// mount or a link, it is written in place.
func writePrivate(path string, data []byte) (err error) {
	const private = 0o600
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if err == nil && !st.Mode().IsRegular() {
		return os.WriteFile(path, data, private)
	}
	f, err := os.CreateTemp(dir, ".config.json.*")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return os.WriteFile(path, data, private)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		if err = os.Rename(f.Name(), path); err == nil {
			return nil
		}
	}
	err = errors.Join(err, os.Remove(f.Name()))
	if errors.Is(err, syscall.EBUSY) { // a mount
		return os.WriteFile(path, data, private)
	}
	return err
}

// tellHelper runs "docker-credential-<helper> <action>" with text as its input, which is not part of any error.
func tellHelper(ctx context.Context, helper, action string, text []byte) error {
	if helper == "" || strings.ContainsAny(helper, "/\\\x00") {
		return errors.New("the helper's name is not valid")
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	out := &limitedBuffer{limit: helperOutputLimit}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, action)
	cmd.Stdin, cmd.Stdout, cmd.WaitDelay = bytes.NewReader(text), out, time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("docker-credential-%s %s: %w: %s", helper, action, err, firstLine(out.buf.String()))
	}
	return nil
}
