package output_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/output"
	"hako/internal/registry/registrytest"
)

// growing is a layer of which half can be read at once, and the rest when more is closed. If fail is closed, it never will be.
type growing struct {
	data       []byte
	more, fail chan struct{}
	closed     atomic.Int32
}

func newGrowing(size int) *growing {
	return &growing{data: bytes.Repeat([]byte("0123456789abcdef"), size/16), more: make(chan struct{}), fail: make(chan struct{})}
}

func (g *growing) Close() error {
	g.closed.Add(1)
	return nil
}

func (g *growing) Open() io.ReadCloser {
	half := len(g.data) / 2
	return io.NopCloser(io.MultiReader(bytes.NewReader(g.data[:half]), &gate{g}, bytes.NewReader(g.data[half:])))
}

// gate is empty, and takes its time to say so.
type gate struct{ *growing }

func (g *gate) Read([]byte) (int, error) {
	select {
	case <-g.more:
		return 0, io.EOF
	case <-g.fail:
		return 0, errors.New("dropped")
	}
}

// layer is what it is when it is made.
func (g *growing) layer() output.Layer {
	return output.Layer{
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(g.data), Size: int64(len(g.data))},
		Open:       func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(g.data)), nil },
	}
}

// What was sent while it was made is not sent again: neither to the destination nor to another of the same registry.
// Where sending goes wrong, the layer is uploaded as always.
func TestStream(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		fault registrytest.Fault
		sends int // PATCH requests with the layer
	}{
		"all is well":          {registrytest.Fault{Method: "none"}, 1},
		"refused":              {registrytest.Fault{Method: "PATCH", Status: http.StatusBadRequest, Times: 1}, 2},
		"length wanted":        {registrytest.Fault{Method: "PATCH", Status: http.StatusLengthRequired, Times: 1}, 2},
		"connection lost":      {registrytest.Fault{Method: "PATCH", Reset: true, Times: 1}, 2},
		"no upload begun":      {registrytest.Fault{Method: "POST", Status: http.StatusBadRequest, Times: 1}, 1},
		"not committed":        {registrytest.Fault{Method: "PUT", Path: "/blobs/", Status: http.StatusNotFound, Times: 1}, 2},
		"committed unnoticed":  {registrytest.Fault{Method: "PUT", Path: "/blobs/", LoseAnswer: true, Times: 1}, 1},
		"token gone meanwhile": {registrytest.Fault{Method: "PATCH", Status: http.StatusUnauthorized, Times: 1}, 2},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			out := open(t, output.Options{Destinations: []string{host + "/a:1", host + "/b:1", host + "/a:2"}})
			g := newGrowing(1 << 20)
			reg.Inject(tt.fault)
			s, err := out.Stream(g)
			if err != nil {
				t.Fatal(err)
			}
			close(g.more)
			l := g.layer()
			s.Finish(l.Digest)
			if err := out.PushBlob(t.Context(), must[name.Repository](t)(name.NewRepository(host+"/a")), l.Descriptor, l.Open); err != nil {
				t.Fatal(err)
			}
			r, _ := result(t)
			im := &r.Images[0]
			im.Layers = []output.Layer{l}
			if err := out.Write(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			const config = 1 // is sent, too
			if n := reg.Count("PATCH", ""); n != tt.sends+config {
				t.Errorf("%d times content was sent, not %d", n, tt.sends+config)
			}
			for _, repo := range []string{"a", "b"} {
				resp, err := http.Get("http://" + host + "/v2/" + repo + "/blobs/" + l.Digest.String())
				if err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, g.data) {
					t.Errorf("%s: %d bytes, %v", repo, len(got), err)
				}
				_ = resp.Body.Close()
			}
			if out.Close(); g.closed.Load() != 1 {
				t.Errorf("closed %d times", g.closed.Load())
			}
		})
	}
}

// A layer that could not be made leaves nothing that waits for it.
func TestDroppedStream(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	out := open(t, output.Options{Destinations: []string{reg.Start(t) + "/a:1"}})
	for range 3 {
		g := newGrowing(1 << 10)
		s, err := out.Stream(g)
		if err != nil {
			t.Fatal(err)
		}
		close(g.fail)
		s.Drop()
	}
	g := newGrowing(1 << 10)
	if _, err := out.Stream(g); err != nil {
		t.Fatal(err)
	}
	close(g.fail)
	if out.Close(); g.closed.Load() != 1 {
		t.Errorf("closed %d times", g.closed.Load())
	}
}

func TestStreamNowhere(t *testing.T) {
	t.Parallel()
	out := open(t, output.Options{Destinations: []string{"localhost:1/a"}, NoPush: true})
	g := newGrowing(1 << 10)
	s, err := out.Stream(g)
	if err != nil || s != nil || g.closed.Load() != 1 {
		t.Errorf("%v, %v, closed %d times", s, err, g.closed.Load())
	}
	s.Finish(digest.FromBytes(g.data))
	s.Drop()
}
