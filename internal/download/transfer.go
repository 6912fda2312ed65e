package download

import (
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"hako/internal/event"
	"hako/internal/inflate"
	"hako/internal/web"
)

const (
	// maxResumes is how often in a row a transfer is resumed without getting resumeProgress further.
	maxResumes     = 5
	resumeProgress = 1 << 20 // 1 MiB
	// maxRestarts is how often a transfer begins anew because the server cannot resume it.
	maxRestarts    = 4
	errorBodyLimit = 4 << 10
)

// transfer is one file on its way. One goroutine uses it.
type transfer struct {
	client *Client
	url    *url.URL
	pinned bool
	header http.Header // nil if the client's logins count
	limit  int64       // bytes

	// What the first answer said, and the connection that is read now.
	resp      *http.Response
	body      io.ReadCloser
	validator string // ETag or Last-Modified, to be sure that it is still the same file
	total     int64  // -1 if unknown
	offset    int64  // of the next byte
	tries     int    // resumes since mark
	mark      int64
}

var (
	errRestart = errors.New("the server cannot resume the transfer")
	// ErrTooBig is about a limit.
	ErrTooBig = errors.New("it is too large")
)

// run gets the file, from the start if the server cannot resume.
func (t *transfer) run(ctx context.Context, want digest.Digest) (_ *File, err error) {
	file, err := t.client.options.File("download")
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	for restarts := 0; ; restarts++ {
		f, err := t.once(ctx, file, want)
		if !errors.Is(err, errRestart) || restarts == maxRestarts {
			return f, err
		}
		t.client.options.Events.Emit(event.Debug{Message: fmt.Sprintf("GET %s again: the connection ended at byte %d, and the server cannot resume", redact(t.url), t.offset)})
		if err := web.Sleep(ctx, t.client.options.RetryDelay<<restarts); err != nil {
			return nil, err
		}
		if err := restart(file); err != nil {
			return nil, err
		}
	}
}

// restart empties the file.
func restart(f *os.File) error {
	_, err := f.Seek(0, io.SeekStart)
	return errors.Join(err, f.Truncate(0))
}

// once gets the whole file over as many connections as it takes.
func (t *transfer) once(ctx context.Context, file *os.File, want digest.Digest) (*File, error) {
	t.offset, t.mark, t.tries = 0, 0, 0
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	defer t.disconnect()
	limit := t.limit
	if t.total > limit {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrTooBig, t.total, limit)
	}
	counter := event.NewCounter(&stream{ctx, t}, t.client.options.Events, event.Progress{ID: "download " + redact(t.url), What: redact(t.url), Total: max(t.total, 0)})
	defer counter.Finish()
	plain, err := decode(counter, t.resp.Header.Get("Content-Encoding"))
	if err != nil {
		return nil, err
	}
	hashes := newHashes(want)
	n, err := io.Copy(file, io.TeeReader(io.LimitReader(plain, limit+1), hashes))
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooBig, limit)
	}
	if err := hashes.check(want); err != nil {
		return nil, err
	}
	out := &File{Size: n, Digest: digest.NewDigest(digest.SHA256, hashes.sha256), file: file}
	if at, err := http.ParseTime(t.resp.Header.Get("Last-Modified")); err == nil {
		out.ModTime = at
	}
	return out, nil
}

// decode undoes a content encoding.
func decode(r io.Reader, encoding string) (io.Reader, error) {
	switch strings.ToLower(encoding) {
	case "", "identity":
		return r, nil
	case "gzip", "x-gzip":
		z, err := inflate.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("undo its gzip encoding: %w", err)
		}
		return z, nil
	}
	return nil, fmt.Errorf("it comes in the content encoding %q, which was not asked for", web.FirstLine(encoding, redact))
}

// hashes computes the sha256, and what else the caller compares.
type hashes struct {
	io.Writer
	sha256, other hash.Hash
}

func newHashes(want digest.Digest) *hashes {
	h := &hashes{sha256: digest.SHA256.Hash()}
	h.Writer, h.other = h.sha256, h.sha256
	switch {
	case want == "":
	case want.Algorithm() == digest.SHA384:
		h.other = sha512.New384()
	case want.Algorithm() == digest.SHA512:
		h.other = sha512.New()
	}
	if h.other != h.sha256 {
		h.Writer = io.MultiWriter(h.sha256, h.other)
	}
	return h
}

// mismatchError says that the content is not what was expected.
type mismatchError struct{ want, got digest.Digest }

func (e *mismatchError) Error() string {
	return fmt.Sprintf("its content has the digest %s, not %s", e.got, e.want)
}

func (h *hashes) check(want digest.Digest) error {
	if want == "" {
		return nil
	}
	if got := digest.NewDigest(want.Algorithm(), h.other); got != want {
		return &mismatchError{want: want, got: got}
	}
	return nil
}

// connect asks for the file from offset on.
func (t *transfer) connect(ctx context.Context) error {
	if t.pinned {
		ctx = context.WithValue(ctx, pinnedKey{}, true)
	}
	if t.header != nil {
		ctx = context.WithValue(ctx, headerKey{}, t.header)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.String(), nil)
	if err != nil {
		return err
	}
	maps.Copy(req.Header, t.header.Clone())
	// Asked for by hand, so that net/http leaves the encoding alone: only the bytes on the wire can be resumed.
	req.Header.Set("Accept-Encoding", "gzip")
	if err := t.authorize(ctx, req); err != nil {
		return err
	}
	if t.offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.offset))
		if t.validator != "" { // else the digest of all of it says whether it was still the same file
			req.Header.Set("If-Range", t.validator)
		}
	}
	resp, err := t.client.http.Do(req)
	if err != nil {
		return err
	}
	if err := t.accept(resp); err != nil {
		web.Discard(resp.Body)
		return err
	}
	return nil
}

// authorize sets the header if the URL has no user.
func (t *transfer) authorize(ctx context.Context, req *http.Request) error {
	if t.url.User != nil || t.header != nil || t.client.options.Credentials == nil {
		return nil // net/http takes the user from the URL
	}
	value, err := t.client.options.Credentials(ctx, t.url)
	if err != nil {
		return err
	}
	if value != "" {
		req.Header.Set("Authorization", value)
	}
	return nil
}

// accept takes the answer to a request, the first or a further one.
func (t *transfer) accept(resp *http.Response) error {
	switch {
	case t.offset > 0 && resp.StatusCode == http.StatusPartialContent:
		if from, total := contentRange(resp.Header.Get("Content-Range")); from != t.offset || t.total >= 0 && total >= 0 && total != t.total {
			return errRestart
		}
		t.body = resp.Body
		return nil
	case t.offset > 0 && (resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusRequestedRangeNotSatisfiable):
		return errRestart
	case resp.StatusCode < http.StatusOK || resp.StatusCode > http.StatusNonAuthoritativeInfo:
		return newStatusError(resp)
	}
	t.resp, t.body, t.total = resp, resp.Body, resp.ContentLength
	t.validator = resp.Header.Get("ETag")
	if t.validator == "" || strings.HasPrefix(t.validator, "W/") {
		t.validator = resp.Header.Get("Last-Modified")
	}
	return nil
}

// contentRange reads "bytes FROM-TO/TOTAL"; what it does not say is -1.
func contentRange(s string) (from, total int64) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, _ := strings.Cut(rest, "/")
	first, _, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return -1, -1
	}
	from, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return -1, -1
	}
	total, err = strconv.ParseInt(all, 10, 64)
	if err != nil {
		total = -1
	}
	return from, total
}

// disconnect ends the connection.
func (t *transfer) disconnect() {
	if t.body != nil {
		_ = t.body.Close() // nothing was written
		t.body = nil
	}
}

// stream reads the bytes on the wire over as many connections as it takes.
type stream struct {
	ctx context.Context //nolint:containedctx // lives as long as the call it serves
	*transfer
}

// Read reads on, on a new connection if the last one was cut.
func (s *stream) Read(p []byte) (int, error) {
	for {
		n, err := s.body.Read(p)
		s.offset += int64(n)
		switch {
		case n > 0:
			return n, nil // an error comes again
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			return 0, io.EOF
		case s.ctx.Err() != nil:
			return 0, context.Cause(s.ctx)
		case !web.Temporary(err):
			return 0, err
		}
		if err := s.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume connects again after the error cause.
func (s *stream) resume(cause error) error {
	s.disconnect()
	s.client.options.Events.Emit(event.Debug{Message: fmt.Sprintf("GET %s: the connection ended at byte %d: %s", redact(s.url), s.offset, web.RedactError(cause, redact))})
	if s.validator == "" && !s.pinned || s.offset == 0 {
		return errRestart
	}
	if s.offset-s.mark >= resumeProgress {
		s.mark, s.tries = s.offset, 0
	}
	for {
		if s.tries++; s.tries > maxResumes {
			return fmt.Errorf("the connection is cut again and again, last at byte %d: %w", s.offset, cause)
		}
		if s.tries > 1 {
			if err := web.Sleep(s.ctx, s.client.options.RetryDelay<<(s.tries-2)); err != nil {
				return err
			}
		}
		err := s.connect(s.ctx)
		if err == nil || s.ctx.Err() != nil || !web.Temporary(err) {
			return err
		}
	}
}
