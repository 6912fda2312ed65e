package build_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hako/internal/build"
	"hako/internal/event"
)

// rounds holds requests back until no more of them come, and lets them go together: so it counts how many wait for each other.
type rounds struct {
	mu      sync.Mutex // guards what follows
	waiting []chan struct{}
	last    time.Time
	all     [][]string
	current []string
}

// quiet is how long nothing must come for a round to be complete.
const quiet = 100 * time.Millisecond

func (r *rounds) RoundTrip(req *http.Request) (*http.Response, error) {
	turn := make(chan struct{})
	r.mu.Lock()
	r.waiting, r.last = append(r.waiting, turn), time.Now()
	r.current = append(r.current, req.Method+" "+req.URL.Path)
	if len(r.waiting) == 1 {
		time.AfterFunc(quiet, r.release)
	}
	r.mu.Unlock()
	select {
	case <-turn:
		return http.DefaultTransport.RoundTrip(req)
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// release lets a round go when it is complete.
func (r *rounds) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := quiet - time.Since(r.last); left > 0 {
		time.AfterFunc(left, r.release)
		return
	}
	for _, turn := range r.waiting {
		close(turn)
	}
	slices.Sort(r.current)
	r.all = append(r.all, r.current)
	r.waiting, r.current = nil, nil
}

// A build that finds everything in the cache moves no layer, and its requests wait for each other in few rounds.
func TestRoundsOfACachedBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\n")
	req := w.request()
	req.Outputs.Destinations = []string{w.host + "/base:1"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(err)
	}
	w.write(t, "Dockerfile", strings.ReplaceAll(`FROM HOST/base:1 AS lib
RUN ["/prog", "write", "/lib", "x"]
RUN ["/prog", "write", "/lib2", "x"]
FROM HOST/base:1
WORKDIR /w
RUN ["/prog", "write", "/one", "x"]
COPY --from=lib /lib /lib
RUN ["/prog", "write", "/two", "x"]
COPY last /last
`, "HOST", w.host))
	w.write(t, "last", "1")
	req = w.request()
	req.Cache = build.Cache{Enabled: true, Copies: true}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what        string
		change      func(try int)
		destination string
		rounds      int
		uploads     int // requests that send bytes: the configuration, and what is new
		blobs       int // that are fetched: the configuration of the base image, and lists of files for what runs
	}{
		{"nothing changed", func(int) {}, "/out:2", 11, 1, 1},
		{"the file of the last COPY changed", func(try int) { w.write(t, "last", fmt.Sprint(2+try)) }, "/out:3", 18, 4, 6},
		{"another destination", func(int) { w.write(t, "last", "1") }, "/new/out:1", 18, 1, 1},
	} {
		req.Cache.Repository = w.host + "/out/cache"
		var got *rounds
		log := &steps{}
		// On a busy machine a request may come late, which makes a round more.
		for try := range 3 {
			c.change(try)
			req.Outputs.Destinations = []string{fmt.Sprint(w.host, c.destination, try)}
			before := len(w.registry.Requests())
			got, log = &rounds{}, &steps{}
			_, err := build.Build(t.Context(), build.Env{
				Now: time.Now, Getenv: func(string) string { return "" }, Cwd: w.context, Stdout: os.Stdout, Events: log, Transport: got,
			}, req)
			if err != nil {
				t.Fatal(err)
			}
			blobs, uploads := 0, 0
			for _, q := range w.registry.Requests()[before:] {
				if q.Method == "GET" && strings.Contains(q.Path, "/blobs/") {
					blobs++
				}
				if q.Method == "PATCH" {
					uploads++
				}
			}
			if uploads > c.uploads || blobs > c.blobs {
				t.Errorf("%s: %d blobs were fetched, %d uploaded: %v", c.what, blobs, uploads, got.all)
			}
			if len(got.all) <= c.rounds {
				break
			}
		}
		if len(got.all) > c.rounds || len(log.ran) > 1 {
			t.Errorf("%s: %d rounds, ran %v", c.what, len(got.all), log.ran)
		}
	}
}
