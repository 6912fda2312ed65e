package submit_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/submit"
)

// TestTakenNameIsLeftAlone gives a build the name of a Job that is there, or that comes while the build is prepared: nothing of
// the other's is deleted.
func TestTakenNameIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, there := range map[string]bool{"from the start": true, "since then": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var changes []string
			api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if r.Method != http.MethodGet {
					changes = append(changes, r.Method)
				}
				w.Header().Set("Content-Type", "application/json")
				reason, code := "NotFound", http.StatusNotFound
				switch {
				case r.Method == http.MethodPost:
					reason, code = "AlreadyExists", http.StatusConflict
				case there:
					fmt.Fprint(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"mine"}}`)
					return
				}
				w.WriteHeader(code)
				fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d}`, reason, code)
			})
			c := connect(t, api)
			none := func(string) string { return "" }
			req := submit.Request{PassContext: true, Build: build.Request{Context: "https://git.example/a.git"}, Job: submit.Job{Name: "mine", Image: "executor"}}
			_, err := submit.Build(t.Context(), submit.Env{Cluster: c, Build: build.Env{Getenv: none, Events: event.Discard{}}}, req)
			if err == nil || !strings.Contains(err.Error(), "there is a Job mine") {
				t.Errorf("got %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(changes, " "); strings.Contains(got, http.MethodDelete) {
				t.Errorf("requests that change something: %s", got)
			}
		})
	}
}
