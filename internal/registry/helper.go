package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	helperTimeout     = 30 * time.Second
	helperOutputLimit = 64 << 10
	// identityUser is the user name with which a helper says that the secret is an identity token
	// (docker/docker-credential-helpers, README).
	identityUser = "<token>"
	// helperNotFound is what helpers print if they have nothing
	// (docker/docker-credential-helpers, credentials.NewErrCredentialsNotFound).
	helperNotFound = "credentials not found in native keychain"
)

// helperCache runs docker-credential-* programs and our own helpers, each at most once per server.
type helperCache struct {
	programs map[string]Helper // immutable

	mu    sync.Mutex // guards calls
	calls map[string]*helperCall
}

type helperCall struct {
	mu   sync.Mutex // held while the helper runs
	done bool
	auth *authn.AuthConfig
	err  error
}

func newHelperCache(programs map[string]Helper) *helperCache {
	return &helperCache{programs: programs, calls: map[string]*helperCall{}}
}

// source asks the helper of that name for the server.
func (h *helperCache) source(path, helper, server string) source {
	where := fmt.Sprintf("docker-credential-%s, named by %s", helper, path)
	return source{name: where, load: func(ctx context.Context) (*authn.AuthConfig, error) {
		return h.get(ctx, helper+"\x00"+server, func(ctx context.Context) (*authn.AuthConfig, error) { return h.run(ctx, helper, server) })
	}}
}

// run runs the helper's program, or what stands in for it.
func (h *helperCache) run(ctx context.Context, helper, server string) (*authn.AuthConfig, error) {
	auth, err := runHelper(ctx, helper, server)
	own, ok := h.programs[helper]
	if !ok || !errors.Is(err, exec.ErrNotFound) {
		return auth, err
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	host, _, _ := strings.Cut(canonicalKey(server), "/")
	return own.Get(ctx, host)
}

// Helper finds credentials for registries that it knows.
type Helper struct {
	// Name is for people.
	Name string
	// Get returns the credentials for the host ("host[:port]"), or nil if it has none. It is called once for each host.
	Get func(ctx context.Context, host string) (*authn.AuthConfig, error)
}

// builtIn asks one of our own helpers for the host.
func (h *helperCache) builtIn(helper Helper, host string) source {
	return source{name: "the helper " + helper.Name, load: func(ctx context.Context) (*authn.AuthConfig, error) {
		return h.get(ctx, "\x00"+helper.Name+"\x00"+host, func(ctx context.Context) (*authn.AuthConfig, error) {
			ctx, cancel := context.WithTimeout(ctx, helperTimeout)
			defer cancel()
			return helper.Get(ctx, host)
		})
	}}
}

// get calls ask once for a key, unless it is interrupted.
func (h *helperCache) get(ctx context.Context, key string, ask func(context.Context) (*authn.AuthConfig, error)) (*authn.AuthConfig, error) {
	h.mu.Lock()
	call, ok := h.calls[key]
	if !ok {
		call = &helperCall{}
		h.calls[key] = call
	}
	h.mu.Unlock()

	call.mu.Lock()
	defer call.mu.Unlock()
	if call.done {
		return call.auth, call.err
	}
	auth, err := ask(ctx)
	if ctx.Err() == nil {
		call.done, call.auth, call.err = true, auth, err
	}
	return auth, err
}

// runHelper runs "docker-credential-<helper> get" with our own environment, which such programs need.
func runHelper(ctx context.Context, helper, server string) (*authn.AuthConfig, error) {
	if helper == "" || strings.ContainsAny(helper, "/\\\x00") {
		return nil, errors.New("the helper's name is not valid")
	}
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	out := &limitedBuffer{limit: helperOutputLimit}
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(server)
	cmd.Stdout = out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		said := firstLine(out.buf.String())
		if said == helperNotFound {
			return nil, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("ask the helper: %w", context.Cause(ctx))
		}
		if said != "" {
			return nil, fmt.Errorf("ask the helper: %w: %s", err, said)
		}
		return nil, fmt.Errorf("ask the helper: %w", err)
	}
	return parseHelper(out.buf.Bytes())
}

// parseHelper decodes what a helper prints. Its errors say nothing of the output, which is secret.
func parseHelper(data []byte) (*authn.AuthConfig, error) {
	var answer struct{ Username, Secret string }
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("read the helper's answer: %w", jsonError(err))
	}
	switch {
	case answer.Secret == "":
		return nil, nil
	case answer.Username == identityUser:
		return &authn.AuthConfig{IdentityToken: answer.Secret}, nil
	case answer.Username == "":
		return nil, nil
	}
	return &authn.AuthConfig{Username: answer.Username, Password: answer.Secret}, nil
}

// limitedBuffer keeps the first limit bytes and drops the rest.
type limitedBuffer struct {
	buf   bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	keep := min(len(p), b.limit-b.buf.Len())
	b.buf.Write(p[:keep])
	return len(p), nil
}
