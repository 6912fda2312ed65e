package registrytest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

const tokenPath = "/token"

// Auth is what a registry asks for.
type Auth struct {
	// Bearer hands out tokens for the credentials; otherwise they are asked for with each request.
	Bearer bool
	// Users maps names to passwords. Without users and identity tokens everybody may do everything.
	Users map[string]string
	// IdentityTokens maps refresh tokens to users (Bearer only).
	IdentityTokens map[string]string
	// PublicPull lets everybody read.
	PublicPull bool
	// ReadOnly lists users that may not write.
	ReadOnly []string
}

type token struct {
	user   string
	scopes []string
}

func (a *Auth) off() bool { return len(a.Users) == 0 && len(a.IdentityTokens) == 0 }

// authorized says who sent the request and whether he may.
func (r *Registry) authorized(req *http.Request) (user string, ok bool) {
	if r.Auth.off() {
		return "", true
	}
	write := req.Method != http.MethodGet && req.Method != http.MethodHead
	if !r.Auth.Bearer {
		user, ok = r.login(req)
		ping := req.URL.Path == "/v2/"
		if !ok {
			return "", !write && !ping && r.Auth.PublicPull && req.Header.Get("Authorization") == ""
		}
		return user, !write || !slices.Contains(r.Auth.ReadOnly, user)
	}
	r.mu.Lock()
	t, ok := r.tokens[strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")]
	r.mu.Unlock()
	if !ok {
		return "", false
	}
	return t.user, slices.Contains(t.scopes, wantedScope(req, write))
}

// wantedScope is "repo:action", or "ping".
func wantedScope(req *http.Request, write bool) string {
	repo, kind, _ := split(req.URL.Path)
	switch {
	case kind == "":
		return "ping"
	case write:
		return repo + ":push"
	}
	return repo + ":pull"
}

// login checks basic credentials.
func (r *Registry) login(req *http.Request) (string, bool) {
	user, password, ok := req.BasicAuth()
	want, known := r.Auth.Users[user]
	return user, ok && known && want == password
}

// challenge says how to log in, or that it would not help.
func (r *Registry) challenge(w http.ResponseWriter, req *http.Request) {
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	value := `Basic realm="test"`
	if r.Auth.Bearer {
		value = fmt.Sprintf(`Bearer realm="%s://%s%s",service="test"`, scheme, req.Host, tokenPath)
		if repo, kind, _ := split(req.URL.Path); kind != "" {
			value += fmt.Sprintf(`,scope="repository:%s:pull,push"`, repo)
		}
	}
	w.Header().Set("WWW-Authenticate", value)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
}

// serveToken is the token server: GET with basic credentials, or POST with an identity token.
func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	if err := req.ParseForm(); err != nil {
		http.Error(w, "bad form", http.StatusBadRequest)
		return
	}
	user, ok := r.login(req)
	if refresh := req.PostForm.Get("refresh_token"); refresh != "" {
		user, ok = r.Auth.IdentityTokens[refresh]
	}
	anonymous := req.Header.Get("Authorization") == "" && req.Method == http.MethodGet && r.Auth.PublicPull
	if !ok && !anonymous {
		http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
		return
	}
	scopes := []string{"ping"}
	for _, s := range queryScopes(req.Form) {
		scopes = append(scopes, r.grant(s, user)...)
	}
	text := rand.Text()
	r.mu.Lock()
	r.tokens[text] = token{user: user, scopes: scopes}
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": text, "expires_in": 300}) // a test's client
}

// grant turns "repository:a/b:pull,push" into what the user gets of it.
func (r *Registry) grant(scope, user string) []string {
	parts := strings.Split(scope, ":")
	if len(parts) != 3 {
		return nil
	}
	var out []string
	for _, action := range strings.Split(parts[2], ",") {
		if action == "push" && (user == "" || slices.Contains(r.Auth.ReadOnly, user)) {
			continue
		}
		out = append(out, parts[1]+":"+action)
	}
	return out
}

// Expire makes all tokens invalid.
func (r *Registry) Expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.tokens)
}
