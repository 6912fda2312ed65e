package submit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"testing"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/event"
	"hako/internal/submit"
)

// namesake is an API server in which a Job had the name of ours before, whose pod is still there, or gets it while ours runs.
type namesake struct {
	// later says that the other Job comes later.
	later bool

	mu      sync.Mutex // guards what follows
	deleted []string
}

func (a *namesake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	const pod = `{"metadata":{"name":%q},"status":{"containerStatuses":[{"name":"executor","state":{"terminated":{"exitCode":%d,"message":"words"}}}]}}`
	status := func(code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
	}
	jobs := strings.Contains(r.URL.Path, "/jobs")
	switch {
	case r.Method == http.MethodPost && jobs:
		var job map[string]any
		if err := json.NewDecoder(r.Body).Decode(&job); err != nil {
			panic(err)
		}
		job["metadata"].(map[string]any)["uid"] = "ours"
		_ = json.NewEncoder(w).Encode(job) // the client sees it
	case r.Method == http.MethodPost:
		_, _ = io.Copy(w, r.Body) // the client sees it
	case r.Method == http.MethodDelete:
		var o struct{ Preconditions struct{ UID string } }
		_ = json.NewDecoder(r.Body).Decode(&o) // without, there is no UID
		a.deleted = append(a.deleted, path.Base(path.Dir(r.URL.Path))+" "+o.Preconditions.UID)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Success"}`)
	case jobs && len(a.deleted) > 0:
		status(http.StatusNotFound, "NotFound")
	case jobs:
		uid := "ours"
		if a.later {
			uid = "another's"
		}
		fmt.Fprintf(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"mine","uid":%q}}`, uid)
	case r.URL.Query().Get("watch") != "":
		status(http.StatusForbidden, "Forbidden")
	case strings.HasSuffix(r.URL.Path, "/pods"):
		items := fmt.Sprintf(pod, "other", 0)
		if strings.Contains(r.URL.Query().Get("labelSelector"), "ours") {
			items = fmt.Sprintf(pod, "own", 7)
		}
		fmt.Fprintf(w, `{"kind":"PodList","apiVersion":"v1","items":[%s]}`, items)
	default:
		status(http.StatusNotFound, "NotFound")
	}
}

// TestNamesakes has another Job of the same name before ours or after it: its pods are not taken for ours, and it is not deleted.
func TestNamesakes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		later         bool
		code          int
		says, deleted string
	}{
		"before": {false, 7, "words", "secrets "},
		"later":  {true, 0, "was deleted while it ran", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			api := &namesake{later: test.later}
			none := func(string) string { return "" }
			req := submit.Request{
				PassContext: true, Build: build.Request{Context: "https://git.example/a.git"},
				Files: []submit.File{{Name: "f", Data: []byte("x")}}, Job: submit.Job{Image: "executor"},
			}
			_, err := submit.Build(t.Context(), submit.Env{Cluster: connect(t, api), Build: build.Env{Getenv: none, Events: event.Discard{}}}, req)
			var failed *submit.FailedError
			code := 0
			if errors.As(err, &failed) {
				code = failed.Code
			}
			if err == nil || !strings.Contains(err.Error(), test.says) || code != test.code {
				t.Errorf("exit code %d, %v, want %d, %q", code, err, test.code, test.says)
			}
			api.mu.Lock()
			defer api.mu.Unlock()
			if got := strings.Join(api.deleted, ","); got != test.deleted {
				t.Errorf("deleted: %s, want %s", got, test.deleted)
			}
		})
	}
}

// TestAttachWithoutRights leaves a Job alone that this user may look up and delete, and whose pods it may not see.
func TestAttachWithoutRights(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var changes []string
	c := connect(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method != http.MethodGet:
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, r.Method+" "+r.URL.Path)
		case strings.Contains(r.URL.Path, "/jobs"):
			fmt.Fprint(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"mine","uid":"1"}}`)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
	}))
	_, err := submit.Attach(t.Context(), submit.Env{Cluster: c, Build: build.Env{Events: event.Discard{}}}, "mine", submit.Request{})
	if !cluster.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(changes) > 0 {
		t.Errorf("requests that change something: %q", changes)
	}
}

// TestTooMuchForASecret is found before anything is made.
func TestTooMuchForASecret(t *testing.T) {
	t.Parallel()
	c := connect(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s", r.Method, r.URL) }))
	req := submit.Request{
		PassContext: true, Build: build.Request{Context: "https://git.example/a.git"},
		Files: []submit.File{{Name: "f", Data: make([]byte, 1<<20+1)}}, Job: submit.Job{Image: "executor"},
	}
	if _, err := submit.Build(t.Context(), submit.Env{Cluster: c, Build: build.Env{Events: event.Discard{}}}, req); err == nil || !strings.Contains(err.Error(), "a Secret of Kubernetes holds") {
		t.Errorf("got %v", err)
	}
}

// hasty is an API server that deletes a Job, and its pod, as soon as it has ended: only the watch tells how.
type hasty struct {
	// pod is the last state of the pod, as JSON.
	pod string
	// keepsJob says that only the pod is deleted.
	keepsJob bool

	mu      sync.Mutex // guards what follows
	watches int
}

func (a *hasty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	gone := a.watches > 1 // who watches again has read what the first watch told
	switch {
	case r.Method == http.MethodPost:
		body, _ := io.ReadAll(r.Body) // the client sees it
		_, _ = w.Write(body)
	case r.URL.Query().Get("watch") != "":
		if a.watches++; a.watches == 1 {
			fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`, a.pod)
		}
	case strings.HasSuffix(r.URL.Path, "/pods"):
		fmt.Fprint(w, `{"kind":"PodList","apiVersion":"v1"}`)
	case strings.HasSuffix(r.URL.Path, "/events"):
		fmt.Fprint(w, `{"kind":"EventList","apiVersion":"v1"}`)
	case strings.Contains(r.URL.Path, "/jobs") && !gone:
		fmt.Fprint(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"mine"}}`)
	case strings.Contains(r.URL.Path, "/jobs") && a.keepsJob:
		fmt.Fprint(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"mine"},"status":{"conditions":[{"type":"Failed","status":"True","message":"policy"}]}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
}

// TestGoneWhenOver has a Job be gone before anybody has looked at its pod that has ended: what the watch told of it counts.
func TestGoneWhenOver(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		metadata string
		exit     int
		keepsJob bool
		says     string
		code     int
	}{
		"failed":           {"", 7, false, "words", 7},
		"its pod only":     {"", 7, true, "words", 7},
		"deleted before":   {`,"deletionTimestamp":"2026-01-01T00:00:00Z"`, 7, false, "was deleted while it ran", 0},
		"killed":           {"", 137, false, "was deleted while it ran", 0},
		"done, no digest":  {"", 0, false, "does not tell the image's digest", 0},
		"done, at the end": {`,"deletionTimestamp":"2026-01-01T00:00:00Z"`, 0, false, "does not tell the image's digest", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"%s},"status":{"containerStatuses":[{"name":"executor","state":{"terminated":{"exitCode":%d,"message":"words"}}}]}}`, test.metadata, test.exit)
			none := func(string) string { return "" }
			req := submit.Request{PassContext: true, Build: build.Request{Context: "https://git.example/a.git"}, Job: submit.Job{Image: "executor"}}
			env := submit.Env{Cluster: connect(t, &hasty{pod: pod, keepsJob: test.keepsJob}), Build: build.Env{Getenv: none, Events: event.Discard{}}}
			_, err := submit.Build(t.Context(), env, req)
			var failed *submit.FailedError
			code := 0
			if errors.As(err, &failed) {
				code = failed.Code
			}
			if err == nil || !strings.Contains(err.Error(), test.says) || code != test.code {
				t.Errorf("exit code %d, %v, want %d, %q", code, err, test.code, test.says)
			}
		})
	}
}
