package servers

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"hako/test/lab"
)

// wire puts toxiproxy before a server, with a toxic if it is not empty, and returns where it listens.
func wire(t *testing.T, upstream, toxic string) string {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	proxy := toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", upstream)
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Stop)
	if toxic != "" {
		if _, err := proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			t.Fatal(err)
		}
	}
	return proxy.Listen
}

// TestBadWire builds over connections that are slow, or cut after so many bytes, each anew.
func TestBadWire(t *testing.T) {
	t.Parallel()
	origin, target := start(t, lab.RegistryOptions{}), start(t, lab.RegistryOptions{})
	pushBase(t, origin.Addr+"/base:1")
	for name, tc := range map[string]struct {
		pull, push string // toxics
		says       string
		fails      bool
	}{
		"slow-answers":      {pull: `{"type":"latency","attributes":{"latency":200,"jitter":50}}`, push: `{"type":"latency","stream":"upstream","attributes":{"latency":50}}`},
		"narrow":            {pull: `{"type":"bandwidth","attributes":{"rate":3000}}`, push: `{"type":"bandwidth","stream":"upstream","attributes":{"rate":6000}}`},
		"cut-pull":          {pull: `{"type":"limit_data","attributes":{"bytes":600000}}`, says: "connection ended at byte"},
		"cut-pull-to-bits":  {pull: `{"type":"limit_data","attributes":{"bytes":100000}}`, says: "connection ended at byte"},
		"sliced":            {pull: `{"type":"slicer","attributes":{"average_size":1000,"delay":10}}`},
		"cut-push-always":   {push: `{"type":"limit_data","stream":"upstream","attributes":{"bytes":1500000}}`, fails: true},
		"nothing-but-reset": {push: `{"type":"reset_peer","attributes":{"timeout":0}}`, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := "/" + name + ":1"
			j := job{args: []string{contextOf(t, wire(t, origin.Addr, tc.pull)+"/base:1"), "--destination=" + wire(t, target.Addr, tc.push) + ref}}
			if tc.fails {
				j.fail(t, "error building image: ")
				absent(t, target.Addr+ref)
				return
			}
			if r := j.succeed(t); !strings.Contains(r.Output, tc.says) {
				t.Errorf("nothing says %q:\n%s", tc.says, r.Output)
			}
			whole(t, target.Addr+ref, 4)
		})
	}
}

// trouble is what a proxy does to requests instead of passing them on.
type trouble struct {
	// method and path choose requests; path is a part of theirs. Skip lets the first ones through, times is how many then suffer.
	method, path string
	skip, times  int
	// status and header answer; cut passes half of the body on and ends the connection; lost passes all on and ends it.
	status    int
	header    http.Header
	cut, lost bool
}

// troubled is a proxy before a registry. It may be used from many goroutines.
type troubled struct {
	proxy *httputil.ReverseProxy

	mu    sync.Mutex // guards what follows
	list  []trouble
	asked map[string]int // how often, by method and path
}

// through puts a proxy before a registry and returns where it listens.
func through(t *testing.T, upstream string, list ...trouble) (*troubled, string) {
	t.Helper()
	to := must[*url.URL](t)(url.Parse("http://" + upstream))
	p := &troubled{list: list, asked: map[string]int{}, proxy: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // the registry's addresses are to be the proxy's
	}, ErrorLog: log.New(io.Discard, "", 0)}}
	return p, strings.TrimPrefix(serve(t, p), "http://")
}

// choose returns the trouble for a request.
func (p *troubled) choose(r *http.Request) *trouble {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[r.Method+" "+r.URL.Path]++
	for i := range p.list {
		t := &p.list[i]
		if t.method != r.Method || !strings.Contains(r.URL.Path, t.path) || t.times == 0 {
			continue
		}
		if t.skip > 0 {
			t.skip--
			continue
		}
		t.times--
		return t
	}
	return nil
}

// ServeHTTP passes a request on, or not.
func (p *troubled) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := p.choose(r)
	switch {
	case t == nil:
		p.proxy.ServeHTTP(w, r)
	case t.cut:
		half, err := io.ReadAll(io.LimitReader(r.Body, r.ContentLength/2))
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(half), brokenReader{}))
		p.proxy.ServeHTTP(discarded{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	case t.lost:
		p.proxy.ServeHTTP(discarded{http.Header{}}, r)
		panic(http.ErrAbortHandler)
	default:
		for k, v := range t.header {
			w.Header()[k] = v
		}
		w.WriteHeader(t.status)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// discarded is an answer that nobody gets.
type discarded struct{ header http.Header }

func (d discarded) Header() http.Header       { return d.header }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}

func busy(seconds int) http.Header { return http.Header{"Retry-After": {strconv.Itoa(seconds)}} }

// TestTroubledRegistry has the registry fail for a while, or for good, at each kind of request.
func TestTroubledRegistry(t *testing.T) {
	t.Parallel()
	origin, target := start(t, lab.RegistryOptions{}), start(t, lab.RegistryOptions{})
	pushBase(t, origin.Addr+"/base:1")
	const always = 1 << 20
	for name, tc := range map[string]struct {
		pull, push []trouble
		args       []string
		says       string
		fails      bool
	}{
		"burst-at-manifest":   {pull: []trouble{{method: "GET", path: "/manifests/", times: 2, status: 503}}, says: "503"},
		"burst-at-blob":       {pull: []trouble{{method: "GET", path: "/blobs/", times: 2, status: 502}}, says: "502"},
		"limited-at-manifest": {pull: []trouble{{method: "GET", path: "/manifests/", times: 1, status: 429, header: busy(2)}}, says: "in 2s: 429"},
		"limited-at-blob":     {pull: []trouble{{method: "GET", path: "/blobs/", times: 1, status: 429, header: busy(1)}}, says: "in 1s: 429"},
		"limited-for-hours":   {pull: []trouble{{method: "GET", path: "/manifests/", times: always, status: 429, header: busy(7200)}}, says: "The registry limits requests", fails: true},
		"no-manifest":         {pull: []trouble{{method: "GET", path: "/manifests/", times: always, status: 404}}, says: "Check the image's name and tag", fails: true},
		"burst-at-start":      {push: []trouble{{method: "POST", path: "/uploads/", times: 2, status: 500}}, says: "500"},
		"burst-at-content":    {push: []trouble{{method: "PATCH", path: "/uploads/", times: 2, status: 503}}, says: "503"},
		"limited-at-content":  {push: []trouble{{method: "PATCH", path: "/uploads/", times: 1, status: 429, header: busy(3)}}, says: "429"},
		"cut-content":         {push: []trouble{{method: "PATCH", path: "/uploads/", times: 3, cut: true}}, says: "upload "},
		"lost-content":        {push: []trouble{{method: "PATCH", path: "/uploads/", times: 1, lost: true}}, says: "upload "},
		"lost-completion":     {push: []trouble{{method: "PUT", path: "/uploads/", times: 1, lost: true}}},
		"lost-tag":            {push: []trouble{{method: "PUT", path: "/manifests/", times: 1, lost: true}}},
		"burst-at-tag":        {push: []trouble{{method: "PUT", path: "/manifests/", times: 2, status: 500}}, says: "500"},
		"retry": {
			push: []trouble{{method: "PUT", path: "/manifests/", times: 4, status: 500}}, args: []string{"--push-retry=1"}, says: "push again in 1s",
		},
		"no-retry":         {push: []trouble{{method: "PUT", path: "/manifests/", times: 4, status: 500}}, says: "The registry has a problem of its own", fails: true},
		"no-completion":    {push: []trouble{{method: "PUT", path: "/uploads/", times: always, status: 400}}, fails: true},
		"blob-is-refused":  {push: []trouble{{method: "PATCH", path: "/uploads/", skip: 2, times: always, status: 413}}, says: "limits the size of uploads", fails: true},
		"no-push-for-us":   {push: []trouble{{method: "POST", path: "/uploads/", times: always, status: 403}}, says: "403 Forbidden", fails: true},
		"push-starts-late": {push: []trouble{{method: "GET", path: "/v2/", times: 2, status: 503}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := "/" + name + ":1"
			_, pull := through(t, origin.Addr, tc.pull...)
			_, push := through(t, target.Addr, tc.push...)
			j := job{args: append([]string{contextOf(t, pull+"/base:1"), "--destination=" + push + ref}, tc.args...)}
			if tc.fails {
				j.fail(t, tc.says)
				absent(t, target.Addr+ref)
				return
			}
			if r := j.succeed(t); !strings.Contains(r.Output, tc.says) {
				t.Errorf("nothing says %q:\n%s", tc.says, r.Output)
			}
			whole(t, target.Addr+ref, 4)
		})
	}
}

// TestSeveralDestinations pushes to three registries at once: each layer of the base image is fetched once.
func TestSeveralDestinations(t *testing.T) {
	t.Parallel()
	origin := start(t, lab.RegistryOptions{})
	pushBase(t, origin.Addr+"/base:1")
	counted, pull := through(t, origin.Addr)
	args := []string{contextOf(t, pull+"/base:1")}
	var refs []string
	for range 3 {
		r := start(t, lab.RegistryOptions{})
		for _, name := range []string{"a:1", "a:2", "b/c:1"} {
			refs = append(refs, r.Addr+"/"+name)
			args = append(args, "--destination="+r.Addr+"/"+name)
		}
	}
	job{args: args}.succeed(t)
	for _, ref := range refs {
		whole(t, ref, 4)
	}
	counted.mu.Lock()
	defer counted.mu.Unlock()
	for request, n := range counted.asked {
		if strings.HasPrefix(request, "GET") && strings.Contains(request, "/blobs/") && n != 1 {
			t.Errorf("%s: %d times", request, n)
		}
	}
}

// TestOneOfSeveralFails has no tag anywhere if one registry cannot be given all of the image.
func TestOneOfSeveralFails(t *testing.T) {
	t.Parallel()
	good, bad := start(t, lab.RegistryOptions{}), start(t, lab.RegistryOptions{})
	pushBase(t, good.Addr+"/base:1")
	_, push := through(t, bad.Addr, trouble{method: "PUT", path: "/uploads/", skip: 3, times: 1000, status: 400})
	job{args: []string{contextOf(t, good.Addr+"/base:1"), "--destination=" + good.Addr + "/app:1", "--destination=" + push + "/app:1"}}.fail(t, "400 Bad Request")
	absent(t, good.Addr+"/app:1")
	absent(t, bad.Addr+"/app:1")
}
