package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
	"hako/internal/diag"
	"hako/internal/web/webtest"
)

const part = 256 << 10

func TestMain(m *testing.M) { os.Exit(buckettest.Main(m)) }

// open opens a server's bucket with small parts.
func open(t *testing.T, s *buckettest.Server) *bucket.Bucket {
	t.Helper()
	return openWith(t, s, bucket.Options{})
}

func openWith(t *testing.T, s *buckettest.Server, o bucket.Options) *bucket.Bucket {
	t.Helper()
	p, err := bucket.Parse(s.Place)
	if err != nil {
		t.Fatal(err)
	}
	if o.Getenv == nil {
		o.Getenv = s.Getenv
	}
	o.RetryDelay, o.PartBytes, o.Window = time.Millisecond, part, 4*part
	b, err := bucket.Open(t.Context(), o, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func write(t *testing.T, b *bucket.Bucket, key string, data []byte) {
	t.Helper()
	if err := b.Write(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, b *bucket.Bucket, key string) (data []byte, err error) {
	r, err := b.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// each runs a test against every service.
func each(t *testing.T, test func(t *testing.T, s *buckettest.Server)) {
	t.Helper()
	for kind, start := range buckettest.All() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// Objects of every size around the bounds of parts come back as they went.
func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		for _, size := range []int{0, 1, part - 1, part, part + 1, 5*part + 3} {
			key := fmt.Sprintf("dir/ä b+%%41&=?#~(%d)", size)
			want := buckettest.Noise(key, size)
			write(t, b, key, want)
			got, err := read(t.Context(), b, key)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes: %d came back, %v", size, len(got), err)
			}
			o, err := b.Stat(t.Context(), key)
			if err != nil || o.Size != int64(size) || o.Version == "" || time.Since(o.ModTime).Abs() > time.Hour {
				t.Errorf("%d bytes: %+v, %v", size, o, err)
			}
		}
		write(t, b, "dir/again", []byte("first"))
		write(t, b, "dir/again", []byte("second"))
		if got, err := read(t.Context(), b, "dir/again"); string(got) != "second" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func TestListAndDelete(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		for _, key := range []string{"a/1", "a/2", "a/b/3", "ab", "c"} {
			write(t, b, key, []byte(key))
		}
		list := func(prefix string) (got []string) {
			for o, err := range b.List(t.Context(), prefix) {
				if err != nil {
					t.Fatal(err)
				}
				if o.Size != int64(len(o.Key)) {
					t.Errorf("%+v", o)
				}
				got = append(got, o.Key)
			}
			return got
		}
		if d := cmp.Diff([]string{"a/1", "a/2", "a/b/3"}, list("a/")); d != "" {
			t.Error(d)
		}
		for range 2 {
			if err := b.Delete(t.Context(), "a/1"); err != nil {
				t.Error(err)
			}
		}
		if d := cmp.Diff([]string{"a/2", "a/b/3", "ab", "c"}, list("")); d != "" {
			t.Error(d)
		}
	})
}

func TestWhatIsMissing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		_, err := read(t.Context(), b, "none")
		expect(t, err, "read "+s.Place+"/none", "404", "Check the name: upper and lower case count")
		if !errors.Is(err, bucket.ErrNotFound) {
			t.Error("it is not ErrNotFound")
		}
		if _, err := b.Stat(t.Context(), "none"); !errors.Is(err, bucket.ErrNotFound) {
			t.Error(err)
		}
		other := &buckettest.Server{Place: s.Place + "-elsewhere", Env: s.Env}
		_, err = read(t.Context(), open(t, other), "none")
		expect(t, err, "read "+other.Place+"/none", "404", "")
	})
}

// expect compares an error for people with what it has to say.
func expect(t *testing.T, err error, what, cause, hint string) {
	t.Helper()
	var d *diag.Error
	if !errors.As(err, &d) {
		t.Errorf("no error for people: %v", err)
		return
	}
	if d.What != what || !strings.Contains(fmt.Sprint(d.Cause), cause) || !strings.HasPrefix(d.Hint, hint) {
		t.Errorf("%s\n%v\nhint: %s\nwant %s, %s, %s", d.What, d.Cause, d.Hint, what, cause, hint)
	}
	if text := fmt.Sprint(err, d.Hint); strings.Contains(text, buckettest.SecretKey) || strings.Contains(text, "Signature=") || strings.Contains(text, "sig=") {
		t.Errorf("a secret is in %s", text)
	}
}

// Connections that end in the middle of each answer are resumed where they ended.
func TestCutConnections(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		want := buckettest.Noise("x", 3*part+5)
		write(t, b, "x", want)
		s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(webtest.Cut(w, part/3), r)
		})
		got, err := read(t.Context(), b, "x")
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(webtest.Cut(w, 0), r)
		})
		_, err = read(t.Context(), b, "x")
		expect(t, err, "read "+s.Place+"/x", "EOF", "Check that the storage service can be reached")
	})
}

// Servers that are busy are asked again; one that always is, not for ever.
func TestBusyServers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		var n atomic.Int64
		s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if n.Add(1)%2 == 1 {
				w.WriteHeader([]int{500, 503, 429}[n.Load()%3])
				return
			}
			next.ServeHTTP(w, r)
		})
		want := buckettest.Noise("x", 3*part)
		write(t, b, "x", want)
		if got, err := read(t.Context(), b, "x"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		s.SetFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(503) })
		s.Requests()
		_, err := read(t.Context(), b, "x")
		expect(t, err, "read "+s.Place+"/x", "503", "The service has a problem of its own")
		if n := len(s.Requests()); n != 6 {
			t.Errorf("%d requests", n)
		}
	})
}

// An object that is replaced while it is read is an error, and never a mix.
func TestReplacedObject(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		write(t, b, "x", buckettest.Noise("old", 40*part))
		r, err := b.Read(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close() //nolint:errcheck // never fails
		write(t, b, "x", buckettest.Noise("new", 40*part))
		got, err := io.ReadAll(r)
		expect(t, err, "read "+s.Place+"/x", "412", "Start again")
		if !bytes.HasPrefix(buckettest.Noise("old", 40*part), got) {
			t.Error("it is a mix")
		}
	})
}

// A build that is stopped stops reading and writing at once, and says why.
func TestStopped(t *testing.T) {
	t.Parallel()
	why := errors.New("no longer wanted")
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		write(t, b, "x", buckettest.Noise("x", 20*part))
		ctx, cancel := context.WithCancelCause(t.Context())
		r, err := b.Read(ctx, "x")
		if err != nil {
			t.Fatal(err)
		}
		s.SetFault(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
			cancel(why)
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice that the client has gone
			<-r.Context().Done()
		})
		if _, err := io.ReadAll(r); !errors.Is(err, why) {
			t.Error(err)
		}
		_ = r.Close() // never fails
		for _, size := range []int{1, 3 * part} {
			ctx, cancel := context.WithCancelCause(t.Context())
			s.SetFault(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
				cancel(why)
				_, _ = io.Copy(io.Discard, r.Body) // likewise
				<-r.Context().Done()
			})
			if err := b.Write(ctx, "y", bytes.NewReader(make([]byte, size)), int64(size)); !errors.Is(err, why) {
				t.Error(err)
			}
		}
	})
}

// What cannot be read to its end, or is longer than was said, becomes no object.
func TestSourcesThatFail(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		for _, size := range []int{10, 3 * part} {
			data := make([]byte, size)
			for name, from := range map[string]io.Reader{
				"short": bytes.NewReader(data[1:]), "long": io.MultiReader(bytes.NewReader(data), strings.NewReader("x")),
				"broken": io.MultiReader(bytes.NewReader(data[1:]), iotest.ErrReader(io.ErrClosedPipe)),
			} {
				if err := b.Write(t.Context(), "x", from, int64(size)); err == nil {
					t.Errorf("%s, %d bytes: no error", name, size)
				}
				if _, err := b.Stat(t.Context(), "x"); !errors.Is(err, bucket.ErrNotFound) {
					t.Errorf("%s, %d bytes: %v", name, size, err)
				}
			}
		}
	})
}

// A reader that is closed early leaves nothing behind.
func TestCloseEarly(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		b := open(t, s)
		write(t, b, "x", buckettest.Noise("x", 10*part))
		r, err := b.Read(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, part+1)); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("a closed reader reads")
		}
	})
}
