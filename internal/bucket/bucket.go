// Package bucket reads and writes objects of S3, Google Cloud Storage and Azure Blob Storage.
//
// An object is read in parts, several at a time, that arrive in order, in bounded memory. A connection that is cut is resumed
// where it ended, and always with the same version of the object: one that is replaced meanwhile is an error, never a mix.
// Objects appear complete or not at all. Identities come from where each cloud's own software finds them; if there are none,
// reading is tried without. No credential, query or signed URL enters an error or an event.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"time"

	"hako/internal/event"
	"hako/internal/web"
)

const (
	defaultIdle  = 60 * time.Second
	defaultDelay = 500 * time.Millisecond
	maxTries     = 6
	maxDelay     = 16 * time.Second
	userAgent    = "hako"
)

// Options says how services are reached.
type Options struct {
	// Getenv looks up endpoints and keys; nil means that nothing is set. The clouds' own software reads the process's environment.
	Getenv func(string) string
	// Transport reaches servers; nil means a new one with the proxies of the environment.
	Transport *http.Transport
	// Events receives retries; nil drops them.
	Events event.Sink
	// RetryDelay is the first pause between two tries, doubled each time; zero means half a second.
	RetryDelay time.Duration
	// IdleTimeout ends a request in which nothing moves; zero means a minute.
	IdleTimeout time.Duration
	// PartBytes is the size of the parts that objects are read and written in, Window the memory for parts of one object.
	// Zero means 8 MiB, and six parts, or an eighth of the memory that this process may use.
	PartBytes, Window int64
}

func (o *Options) env(name string) string {
	if o.Getenv == nil {
		return ""
	}
	return o.Getenv(name)
}

// Object is what a service says of an object.
type Object struct {
	Key string
	// Size is in bytes. ModTime is when the object was written; zero if the service did not say.
	Size    int64
	ModTime time.Time
	// Version tells this content from any other that the key had or will have.
	Version string
	// Encoding is the Content-Encoding that the object was stored with: Read returns what was stored.
	Encoding string
}

// request asks for a part of an object.
type request struct {
	key string
	// version is the one that is wanted as a place names it, match what [Object.Version] was; both may be empty.
	version, match string
	// length 0 asks for all of it.
	offset, length int64
}

// response is a part of an object. Whoever gets it closes body.
type response struct {
	Object // Size is that of the whole
	body   io.ReadCloser
}

// service is one cloud's protocol: single requests, tried once. All its methods may be called from many goroutines;
// their errors are *answer where the service answered.
type service interface {
	get(ctx context.Context, r request) (*response, error)
	// put writes an object of one part.
	put(ctx context.Context, key string, data []byte) error
	// begin starts to write an object of several parts.
	begin(ctx context.Context, key string, size int64) (upload, error)
	// list returns the objects after those of a page, and what names the next page; "" is the first and the last.
	list(ctx context.Context, prefix, after string) ([]Object, string, error)
	remove(ctx context.Context, key string) error
}

// upload is an object that is written in parts.
type upload interface {
	// width is how many parts may be sent at once.
	width() int
	// part sends bytes that begin at offset; number counts from 0. It may be repeated.
	part(ctx context.Context, number int, offset int64, data []byte) error
	// commit makes the object appear; no part may follow.
	commit(ctx context.Context) error
	// abort gives the upload up and frees what was stored.
	abort(ctx context.Context) error
}

// Bucket is one bucket. It may be used from many goroutines.
type Bucket struct {
	place   Place
	options Options
	service service
	// anonymous is why there are no credentials; nil if there are some, or none are needed.
	anonymous error
	closers   []func()
}

// Open finds credentials for a place and returns its bucket, in which all keys are whole ones: [Place.Key] counts for nothing.
// Whether there is such a bucket is seen when it is used. The caller closes it.
func Open(ctx context.Context, o Options, p Place) (*Bucket, error) {
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = defaultDelay
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = defaultIdle
	}
	if o.PartBytes == 0 {
		o.PartBytes = defaultPart
	}
	if o.Window == 0 {
		o.Window = defaultWindow()
	}
	b := &Bucket{place: p, options: o}
	if err := b.connect(ctx); err != nil {
		b.Close()
		return nil, b.explain(ctx, "open", "", err)
	}
	return b, nil
}

// client is an HTTP client over a transport that ends what hangs, follows no redirects, and is closed with the bucket.
func (b *Bucket) client(t *http.Transport) *http.Client {
	if b.options.Transport != nil {
		t = b.options.Transport
	} else {
		t.DisableCompression = true // what was stored with an encoding is wanted as it was stored
		b.closers = append(b.closers, t.CloseIdleConnections)
	}
	return &http.Client{
		Transport:     &web.Guard{Inner: t, Idle: b.options.IdleTimeout, UserAgent: userAgent},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close closes idle connections.
func (b *Bucket) Close() {
	for _, c := range b.closers {
		c()
	}
}

// again repeats do while it fails for a passing reason. what says in a log what was attempted ("write to").
func (b *Bucket) again(ctx context.Context, what string, do func() error) error {
	for try := 1; ; try++ {
		err := do()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if !temporary(err) || try == maxTries {
			return err
		}
		if err := b.pause(ctx, what, try, err); err != nil {
			return err
		}
	}
}

// pause waits before the next try, longer each time, and never as long as others who were refused with us.
func (b *Bucket) pause(ctx context.Context, what string, try int, because error) error {
	d := min(b.options.RetryDelay<<(try-1), maxDelay)
	d = d/2 + rand.N(d/2+1)
	b.options.Events.Emit(event.Debug{Message: fmt.Sprintf("retry to %s %s in %s: %v", what, b.place.url(""), d.Round(time.Millisecond), web.RedactError(because, redact))})
	return web.Sleep(ctx, d)
}

// get asks for a part of an object until there is an answer.
func (b *Bucket) get(ctx context.Context, r request) (resp *response, err error) {
	err = b.again(ctx, "read", func() error {
		resp, err = b.service.get(ctx, r)
		return err
	})
	return resp, err
}

// Stat returns what is known of an object. An error about one that is not there is [ErrNotFound].
func (b *Bucket) Stat(ctx context.Context, key string) (Object, error) {
	resp, err := b.head(ctx, key, 1)
	if err != nil {
		return Object{}, b.explain(ctx, "look up", key, err)
	}
	_ = resp.body.Close() // one byte that nobody wants
	return resp.Object, nil
}

// head asks for the first bytes of an object, which may be empty.
func (b *Bucket) head(ctx context.Context, key string, length int64) (*response, error) {
	r := request{key: key, length: length}
	if key == b.place.Key {
		r.version = b.place.Version
	}
	resp, err := b.get(ctx, r)
	var a *answer
	if errors.As(err, &a) && a.reason == emptyRange {
		r.length = 0
		resp, err = b.get(ctx, r)
	}
	return resp, err
}

// Delete removes an object. That it is not there is no error.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	err := b.again(ctx, "delete from", func() error { return b.service.remove(ctx, key) })
	if err != nil && !errors.Is(err, ErrNotFound) {
		return b.explain(ctx, "delete", key, err)
	}
	return nil
}

// List yields the objects whose keys begin with prefix, by key; only what a listing shows of them is set.
func (b *Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		after := ""
		for {
			var page []Object
			err := b.again(ctx, "list", func() (err error) {
				page, after, err = b.list(ctx, prefix, after)
				return err
			})
			if err != nil {
				yield(Object{}, b.explain(ctx, "list", prefix, err))
				return
			}
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
			}
			if after == "" {
				return
			}
		}
	}
}

// list returns a page, and after itself with an error, so that the page can be asked for again.
func (b *Bucket) list(ctx context.Context, prefix, after string) ([]Object, string, error) {
	page, next, err := b.service.list(ctx, prefix, after)
	if err != nil {
		return nil, after, err
	}
	return page, next, nil
}
