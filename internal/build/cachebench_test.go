package build_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
)

// traffic counts what goes to and comes from registries.
type traffic struct{ requests, up, down atomic.Int64 }

func (c *traffic) RoundTrip(req *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	c.up.Add(max(req.ContentLength, 0))
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		resp.Body = &countedBody{resp.Body, &c.down}
	}
	return resp, err
}

type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

const benchDockerfile = `FROM HOST/base:1
ENV A=1
WORKDIR /app
COPY big /app/
RUN ["/prog", "write", "/one", "x"]
COPY mid /app/
RUN ["/prog", "write", "/two", "x"]
RUN ["/prog", "write", "/three", "x"]
COPY last /app/
`

// BenchmarkCache builds nine instructions with a base and a file of 8 MiB each, and says what goes over the network.
func BenchmarkCache(b *testing.B) {
	for _, place := range []string{"registry", "directory"} {
		for _, row := range []struct{ name, change string }{{"cold-with-export", "big"}, {"mid-change", "mid"}, {"last-copy-change", "last"}, {"full-hit", ""}, {"no-cache", "none"}} {
			b.Run(place+"/"+row.name, func(b *testing.B) { benchmarkCache(b, place, row.change) })
		}
	}
}

func benchmarkCache(b *testing.B, place, change string) {
	dir, noise := b.TempDir(), rand.NewChaCha8([32]byte{})
	host := registrytest.New().Start(b)
	write := func(name string, size int) {
		data := make([]byte, size)
		_, _ = noise.Read(data) // never fails
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	const big = 8 << 20
	write("big", big)
	write("mid", 100)
	write("last", 100)
	compileStep(b, dir)
	req := build.Request{
		Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile"), WorkDir: b.TempDir(), Registry: build.Registry{Insecure: true, InsecurePull: true},
		Cache: build.Cache{Enabled: change != "none", Repository: host + "/out/cache"},
	}
	if place == "directory" {
		req.Cache.Repository = "oci:" + b.TempDir()
	}
	counts := &traffic{}
	run := func(destination, dockerfile string) {
		req.Outputs.Destinations = []string{host + destination}
		if err := os.WriteFile(req.Dockerfile, []byte(strings.ReplaceAll(dockerfile, "HOST", host)), 0o644); err != nil {
			b.Fatal(err)
		}
		env := build.Env{Now: time.Now, Getenv: func(string) string { return "" }, Cwd: dir, Stdout: io.Discard, Events: event.Discard{}, Transport: counts}
		if _, err := build.Build(b.Context(), env, req); err != nil {
			b.Fatal(err)
		}
	}
	run("/base:1", "FROM scratch\nCOPY prog big /\n")
	write("big", big)
	run("/out:0", benchDockerfile)
	run("/out:0", benchDockerfile)
	counts.requests.Store(0)
	counts.up.Store(0)
	counts.down.Store(0)
	for i := 0; b.Loop(); i++ {
		if change != "" && change != "none" {
			write(change, map[string]int{"big": big}[change]+100)
		}
		run(fmt.Sprintf("/out:%d", i+1), benchDockerfile)
	}
	per := float64(b.N)
	b.ReportMetric(float64(counts.requests.Load())/per, "requests/op")
	b.ReportMetric(float64(counts.up.Load())/per, "B-up/op")
	b.ReportMetric(float64(counts.down.Load())/per, "B-down/op")
}
