package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/authn"

	"hako/internal/diag"
	"hako/internal/event"
)

const (
	dockerConfigLimit = 1 << 20
	// hubServer is Docker Hub's key in configuration files and for credential helpers.
	hubServer = authn.DefaultAuthKey
)

// source is one place where credentials for a repository may come from.
type source struct {
	// name says where, for people; it holds no secret.
	name string
	// load returns the credentials, or nil if the source has none.
	load func(ctx context.Context) (*authn.AuthConfig, error)
}

// dockerConfig is what we read of a config.json. Entries of Auths are decoded when they are needed,
// so that a damaged entry hurts only those who need it.
type dockerConfig struct {
	path        string
	Auths       map[string]json.RawMessage `json:"auths"`
	CredHelpers map[string]string          `json:"credHelpers"`
	CredsStore  string                     `json:"credsStore"`
}

// keychain holds the configuration files in order, and our own helpers. It is immutable but for the helpers' cache.
type keychain struct {
	configs []*dockerConfig
	builtIn []Helper
	helpers *helperCache
	// unreadable are files that are there, and that this user may not read.
	unreadable []string
}

// newKeychain reads the configuration: the variable's text first, then docker's files, then others of the same form.
func newKeychain(o *Options) (*keychain, error) {
	k := &keychain{builtIn: o.Helpers, helpers: newHelperCache(o.Programs)}
	if strings.TrimSpace(o.AuthConfig) != "" {
		c, err := decodeDockerConfig("DOCKER_AUTH_CONFIG", []byte(o.AuthConfig))
		if err != nil {
			return nil, &diag.Error{What: "read registry credentials from DOCKER_AUTH_CONFIG", Cause: err, Hint: "Correct or unset the variable."}
		}
		k.configs = append(k.configs, c)
	}
	var files []string
	for _, dir := range o.DockerConfigDirs {
		if dir != "" {
			files = append(files, filepath.Join(dir, "config.json"))
		}
	}
	seen := map[string]bool{"": true}
	for _, path := range append(files, o.AuthFiles...) {
		if seen[path] {
			continue
		}
		seen[path] = true
		if err := k.read(path, o.Events); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// read adds the file at path, if there is one that we may read.
func (k *keychain) read(path string, events event.Sink) error {
	c, err := readDockerConfig(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
	case errors.Is(err, fs.ErrPermission):
		k.skip(path, err, events)
	case err != nil:
		return &diag.Error{
			What:  "read registry credentials from " + path,
			Cause: err,
			Hint:  "Correct the file, or point DOCKER_CONFIG to another directory.",
		}
	default:
		k.configs = append(k.configs, c)
	}
	return nil
}

// skip passes over a file that we may not read. In a directory that is closed to us, as root's home is, nothing can be for us,
// so that only a file that can be seen there is worth a warning.
func (k *keychain) skip(path string, err error, events event.Sink) {
	if _, unseen := os.Stat(path); unseen != nil {
		events.Emit(event.Debug{Message: "skip " + path + ": " + err.Error()})
		return
	}
	k.unreadable = append(k.unreadable, path)
	events.Emit(event.Warning{Message: fmt.Sprintf("registry credentials in %s are not used: the user %d may not read it", path, os.Geteuid())})
}

func readDockerConfig(path string) (*dockerConfig, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only: nothing to lose
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, errors.New("it is a directory")
	}
	data, err := io.ReadAll(io.LimitReader(f, dockerConfigLimit+1))
	if err != nil {
		return nil, err
	}
	if len(data) > dockerConfigLimit {
		return nil, fmt.Errorf("it is larger than %d bytes", dockerConfigLimit)
	}
	return decodeDockerConfig(path, data)
}

// decodeDockerConfig decodes what came from the place called path.
func decodeDockerConfig(path string, data []byte) (*dockerConfig, error) {
	c := &dockerConfig{path: path}
	if len(strings.TrimSpace(string(data))) == 0 {
		return c, nil
	}
	if err := json.Unmarshal(data, c); err != nil {
		return nil, jsonError(err)
	}
	return c, nil
}

// jsonError describes a JSON error without the text that it stumbled over, which may be secret.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not valid JSON at byte %d", syntax.Offset)
	}
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		return fmt.Errorf("%s has the wrong type at byte %d", typed.Field, typed.Offset)
	}
	return errors.New("not valid JSON")
}

// sources lists where credentials for the repository ("host/path") may come from, best first:
// in each file entries with a path (longest first), the host's helper, the host's entry, the general helper; then our own helpers.
func (k *keychain) sources(repository string) []source {
	var out []source
	for _, c := range k.configs {
		out = append(out, c.sources(repository, k.helpers)...)
	}
	host, _, _ := strings.Cut(repository, "/")
	for _, h := range k.builtIn {
		out = append(out, k.helpers.builtIn(h, host))
	}
	return out
}

func (c *dockerConfig) sources(repository string, helpers *helperCache) []source {
	host, _, _ := strings.Cut(repository, "/")
	var out []source
	auths := matching(c.Auths, repository)
	for _, key := range auths {
		if strings.Contains(canonicalKey(key), "/") {
			out = append(out, c.entry(key))
		}
	}
	for _, key := range matching(c.CredHelpers, repository) {
		out = append(out, helpers.source(c.path, c.CredHelpers[key], serverOf(key)))
	}
	for _, key := range auths {
		if !strings.Contains(canonicalKey(key), "/") {
			out = append(out, c.entry(key))
		}
	}
	if c.CredsStore != "" {
		out = append(out, helpers.source(c.path, c.CredsStore, serverOf(host)))
	}
	return out
}

// entry is the source for one key of auths.
func (c *dockerConfig) entry(key string) source {
	where := fmt.Sprintf("%s (auths %q)", c.path, redactText(key))
	return source{name: where, load: func(context.Context) (*authn.AuthConfig, error) {
		return decodeAuth(c.Auths[key])
	}}
}

// decodeAuth decodes one value of auths. An empty one, as "docker login" leaves it beside a helper, is none.
func decodeAuth(raw json.RawMessage) (*authn.AuthConfig, error) {
	var a authn.AuthConfig
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, errors.New("the entry cannot be decoded")
	}
	a.Password = strings.Trim(a.Password, "\x00") // as docker/cli's decodeAuth: old files are padded
	if a == (authn.AuthConfig{}) || (a.IdentityToken == "" && a.RegistryToken == "" && a.Username == "") {
		return nil, nil
	}
	if a.Username != "" && a.Password == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return nil, nil
	}
	a.Auth = "" // decoded above
	return &a, nil
}

// matching returns the keys that apply to the repository, the longest first.
func matching[V any](m map[string]V, repository string) []string {
	var keys []string
	for key := range m {
		if prefix := canonicalKey(key); repository == prefix || strings.HasPrefix(repository, prefix+"/") {
			keys = append(keys, key)
		}
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := canonicalKey(keys[i]), canonicalKey(keys[j])
		if len(a) != len(b) {
			return len(a) > len(b)
		}
		return keys[i] < keys[j]
	})
	return keys
}

// canonicalKey turns a key of a configuration file into "host" or "host/path". A key with a scheme names
// a whole host, whatever its path, as docker's does; "/v1/" and "/v2/" are no path either.
func canonicalKey(key string) string {
	rest, schemed := strings.CutPrefix(key, "https://")
	if !schemed {
		rest, schemed = strings.CutPrefix(key, "http://")
	}
	host, path, _ := strings.Cut(rest, "/")
	path = strings.Trim(path, "/")
	if schemed || path == "" || path == "v1" || path == "v2" {
		return canonicalHost(host)
	}
	return canonicalHost(host) + "/" + path
}

// serverOf is what a credential helper is asked for.
func serverOf(key string) string {
	if canonicalKey(key) == canonicalKey(hubServer) {
		return hubServer
	}
	return key
}
