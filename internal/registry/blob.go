package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/event"
	"hako/internal/web"
)

const (
	// maxResumes is how often in a row a download is continued without getting resumeProgress bytes further.
	maxResumes     = 5
	resumeProgress = 64 << 10
)

// Blob opens a blob. Reading it to the end verifies digest and size: unless the last Read returns io.EOF,
// the bytes must not be believed. A connection that is cut is continued where it ended.
// The caller closes it. Only so many blobs are open at once; Blob waits for its turn.
func (r *Repository) Blob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	what := "fetch " + r.Name() + "@" + want.Digest.String()
	if err := want.Digest.Validate(); err != nil {
		return nil, r.explain(ctx, what, err)
	}
	if want.Size < 0 {
		return nil, r.explain(ctx, what, refuse("its size is %d bytes", want.Size))
	}
	if err := r.acquire(ctx); err != nil {
		return nil, r.explain(ctx, what, err)
	}
	downloadCtx, cancel := context.WithCancel(ctx)
	b := &blobReader{repo: r, ctx: downloadCtx, cancel: cancel, what: what, want: want, verifier: want.Digest.Verifier()}
	if err := b.connect(); err != nil {
		_ = b.Close() // nothing is open yet
		return nil, r.explain(ctx, what, err)
	}
	return b, nil
}

// acquire waits for a transfer slot; the caller must release it.
func (r *Repository) acquire(ctx context.Context) error {
	select {
	case r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Repository) release() { <-r.slots }

// blobReader is a download that can be continued. It is used by one goroutine.
type blobReader struct {
	repo     *Repository
	ctx      context.Context // of the download; the reader is the request
	cancel   context.CancelFunc
	what     string
	want     ocispec.Descriptor
	verifier digest.Verifier

	body   io.ReadCloser // nil between two connections
	offset int64         // bytes handed out
	tries  int           // connections without progress
	mark   int64         // offset when tries was last reset
	closed bool
	err    error // what Read returns for ever
}

// connect asks for the blob from b.offset on.
func (b *blobReader) connect() error {
	c := call{
		method: http.MethodGet,
		url:    b.repo.url("blobs", b.want.Digest.String()),
		header: http.Header{},
		want:   []int{http.StatusOK},
	}
	if b.offset > 0 {
		c.header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.offset, b.want.Size-1))
		c.want = append(c.want, http.StatusPartialContent)
	}
	resp, err := b.repo.send(b.ctx, c)
	if missing := new(ResponseError); errors.As(err, &missing) && missing.Status == http.StatusNotFound {
		resp, err = b.elsewhere(c, err)
	}
	if err != nil {
		return err
	}
	if err := b.position(resp); err != nil {
		web.Discard(resp.Body)
		return err
	}
	b.body = resp.Body
	return nil
}

// elsewhere asks the addresses that the descriptor itself names (non-distributable layers), without credentials.
func (b *blobReader) elsewhere(c call, missing error) (*http.Response, error) {
	for _, u := range b.want.URLs {
		parsed, err := url.Parse(u)
		if err != nil || parsed.Scheme != "https" || parsed.User != nil || isPrivateHost(parsed.Host) {
			continue
		}
		s := &session{client: &http.Client{Transport: b.repo.client.stacks[stackKey{access: Pull}], CheckRedirect: b.repo.checkRedirect}}
		c.url = u
		if resp, err := s.send(b.ctx, c); err == nil {
			return resp, nil
		}
	}
	return nil, missing
}

// position makes sure that the response continues at b.offset.
func (b *blobReader) position(resp *http.Response) error {
	if resp.StatusCode == http.StatusPartialContent {
		start, err := rangeStart(resp.Header.Get("Content-Range"))
		if err != nil || start != b.offset {
			return refuse("the registry answers %q when asked for the bytes from %d on", firstLine(resp.Header.Get("Content-Range")), b.offset)
		}
		return nil
	}
	if resp.ContentLength >= 0 && resp.ContentLength != b.want.Size {
		return refuse("the registry sends %d bytes instead of %d", resp.ContentLength, b.want.Size)
	}
	if _, err := io.CopyN(io.Discard, resp.Body, b.offset); err != nil {
		return fmt.Errorf("skip to byte %d: %w", b.offset, err)
	}
	return nil
}

// rangeStart is the first position in a Content-Range header: "bytes 21010-47021/47022".
func rangeStart(value string) (int64, error) {
	positions, ok := strings.CutPrefix(strings.TrimSpace(value), "bytes ")
	if !ok {
		return 0, fmt.Errorf("range %q", value)
	}
	start, _, _ := strings.Cut(positions, "-")
	return strconv.ParseInt(strings.TrimSpace(start), 10, 64)
}

func (b *blobReader) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := b.read(p)
	if err != nil && err != io.EOF {
		err = b.repo.explain(b.ctx, b.what, err)
	}
	b.err = err
	return n, err
}

// read returns the next bytes, over as many connections as it takes.
func (b *blobReader) read(p []byte) (int, error) {
	for b.offset < b.want.Size {
		if b.body == nil {
			if err := b.reconnect(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := b.body.Read(p[:min(int64(len(p)), b.want.Size-b.offset)])
		b.offset += int64(n)
		_, _ = b.verifier.Write(p[:n]) // a hash: never fails
		if err != nil {
			b.drop(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	if !b.verifier.Verified() {
		return 0, refuse("the registry sent content with another digest")
	}
	return 0, io.EOF
}

// drop ends a connection that gave an error, or ended early.
func (b *blobReader) drop(err error) {
	_ = b.body.Close() // broken anyway
	b.body = nil
	if b.offset < b.want.Size {
		b.repo.client.options.Events.Emit(event.Debug{
			Message: fmt.Sprintf("%s: connection ended at byte %d of %d: %s", b.what, b.offset, b.want.Size, redactError(err)),
		})
	}
}

// reconnect continues the download after a pause, or gives up.
func (b *blobReader) reconnect() error {
	if b.offset-b.mark >= resumeProgress {
		b.mark, b.tries = b.offset, 0
	}
	for {
		if b.tries++; b.tries > maxResumes || b.repo.stack.hurried && b.tries > hurriedTries {
			return fmt.Errorf("the connection is cut again and again, last after %d of %d bytes: %w", b.offset, b.want.Size, io.ErrUnexpectedEOF)
		}
		if err := web.Sleep(b.ctx, b.pause()); err != nil {
			return err
		}
		err := b.connect()
		if err == nil || !temporary(err) {
			return err
		}
	}
}

// pause is zero for the first try: most cuts are accidents.
func (b *blobReader) pause() time.Duration {
	if b.tries <= 1 {
		return 0
	}
	return b.repo.client.options.RetryDelay << (b.tries - 2)
}

// Close ends the download and frees its slot.
func (b *blobReader) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	var err error
	if b.body != nil {
		err = b.body.Close()
	}
	b.cancel()
	b.repo.release()
	if b.err == nil {
		b.err = errors.New("read from a closed blob")
	}
	return err
}
