package submit_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/event"
	"hako/internal/submit"
)

// forgetful is an API server that keeps what is created, and does not say so.
type forgetful struct {
	// lose says for each creation, by its kind and counted from 0, whether its answer is lost.
	lose func(kind string, nth int) bool

	mu      sync.Mutex // guards what follows
	kept    map[string][]byte
	asked   map[string]int
	deleted []string
}

func (a *forgetful) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	refuse := func(code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
	}
	dir, name := filepath.Split(r.URL.Path)
	switch r.Method {
	case http.MethodPost:
		body, err := io.ReadAll(r.Body)
		var object struct{ Metadata struct{ Name string } }
		if err != nil || json.Unmarshal(body, &object) != nil {
			refuse(http.StatusBadRequest, "BadRequest")
			return
		}
		key := r.URL.Path + "/" + object.Metadata.Name
		nth := a.asked[name]
		a.asked[name]++
		if a.kept[key] != nil {
			refuse(http.StatusConflict, "AlreadyExists")
			return
		}
		a.kept[key] = body
		if a.lose(name, nth) {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
	case http.MethodDelete:
		a.deleted = append(a.deleted, filepath.Base(dir)+"/"+name)
		delete(a.kept, r.URL.Path)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	default:
		if a.kept[r.URL.Path] == nil {
			refuse(http.StatusNotFound, "NotFound")
			return
		}
		_, _ = w.Write(a.kept[r.URL.Path])
	}
}

// connect makes a client for an API server that h plays.
func connect(t *testing.T, h http.Handler) *cluster.Client {
	t.Helper()
	api := httptest.NewServer(h)
	t.Cleanup(api.Close)
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", api.URL)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Connect(cluster.Options{Kubeconfig: config, Namespace: "n", Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestLostAnswers loses the answers to what is created: it is there once, and the build goes on.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	const job, secret = "/apis/batch/v1/namespaces/n/jobs/mine", "/api/v1/namespaces/n/secrets/mine"
	for name, test := range map[string]struct {
		lose  func(kind string, nth int) bool
		there map[string][]byte
		// left is what is in the cluster at the end; deleted what was deleted.
		left, deleted []string
		says          string
	}{
		"none":          {lose: func(string, int) bool { return false }, left: []string{secret, job}},
		"of the Job":    {lose: func(kind string, nth int) bool { return kind == "jobs" && nth == 0 }, left: []string{secret, job}},
		"of the Secret": {lose: func(kind string, nth int) bool { return kind == "secrets" && nth == 0 }, left: []string{secret, job}},
		"of the Job, whose Secret is another's": {
			lose: func(kind string, nth int) bool { return kind == "jobs" && nth == 0 }, there: map[string][]byte{secret: []byte(`{}`)},
			deleted: []string{"jobs/mine"}, left: []string{secret}, says: "there is a Secret mine",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &forgetful{lose: test.lose, kept: map[string][]byte{}, asked: map[string]int{}}
			for path, object := range test.there {
				api.kept[path] = object
			}
			none := func(string) string { return "" }
			req := submit.Request{
				PassContext: true, Detach: true, Build: build.Request{Context: "https://git.example/a.git"},
				Files: []submit.File{{Name: "f", Data: []byte("x")}}, Job: submit.Job{Name: "mine", Image: "executor"},
			}
			_, err := submit.Build(t.Context(), submit.Env{Cluster: connect(t, api), Build: build.Env{Getenv: none, Events: event.Discard{}}}, req)
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want %q", err, test.says)
			}
			api.mu.Lock()
			defer api.mu.Unlock()
			var left []string
			for path := range api.kept {
				left = append(left, path)
			}
			slices.Sort(left)
			if !slices.Equal(left, test.left) || !slices.Equal(api.deleted, test.deleted) {
				t.Errorf("there is %q, want %q; deleted is %q, want %q", left, test.left, api.deleted, test.deleted)
			}
		})
	}
}
