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
	"sync"
	"sync/atomic"

	"hako/internal/web"
)

// sendContent sends the blob to an upload that was begun at location, and returns where to complete it. If the connection
// is cut it asks the registry how much arrived, and goes on from there. Registries may not know (distribution forgets an
// upload that was cut within a request): then the first error is returned, and the upload is to be begun anew.
func (r *Repository) sendContent(ctx context.Context, b Blob, location *url.URL) (*url.URL, error) {
	offset := int64(0)
	for try := 1; ; try++ {
		next, err := r.sendFrom(ctx, b, offset, location)
		if err == nil || try > maxResumes || ctx.Err() != nil || !cutOff(err) {
			return next, err
		}
		at, arrived, ok := r.arrived(ctx, location)
		if !ok || arrived <= offset || arrived > b.Size {
			return nil, err
		}
		r.debug(fmt.Sprintf("upload %s@%s: connection ended, %d of %d bytes arrived: %s", r.Name(), b.Digest, arrived, b.Size, redactError(err)))
		if arrived == b.Size {
			return at, nil
		}
		if arrived-offset >= resumeProgress {
			try = 0
		}
		location, offset = at, arrived
	}
}

// sendFrom sends the blob's bytes from offset on, and returns where the upload continues.
func (r *Repository) sendFrom(ctx context.Context, b Blob, offset int64, location *url.URL) (*url.URL, error) {
	source := &sourceFault{}
	c := call{
		method: http.MethodPatch,
		url:    location.String(),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   func() (io.ReadCloser, error) { return openSource(ctx, b, offset, source) },
		size:   b.Size - offset,
		want:   []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
	}
	if offset > 0 {
		c.header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, b.Size-1)) // OCI distribution-spec, "Pushing a blob in chunks"
	}
	resp, err := r.send(ctx, c)
	if err != nil {
		return nil, source.or(err)
	}
	web.Discard(resp.Body)
	return r.location(resp)
}

// cutOff says whether a part of the content may have arrived.
func cutOff(err error) bool {
	return !errors.As(err, new(*sourceError)) && !errors.As(err, new(*ResponseError)) && temporary(err)
}

// arrived asks how many bytes of an upload the registry has, and where to send the others.
func (r *Repository) arrived(ctx context.Context, location *url.URL) (at *url.URL, size int64, ok bool) {
	resp, err := r.send(ctx, call{method: http.MethodGet, url: location.String(), want: []int{http.StatusNoContent, http.StatusAccepted}})
	if err != nil {
		return nil, 0, false
	}
	web.Discard(resp.Body)
	first, last, _ := strings.Cut(strings.TrimPrefix(resp.Header.Get("Range"), "bytes="), "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if first != "0" || err != nil || end <= 0 { // "0-0" is also what registries say that have nothing
		return nil, 0, false
	}
	if resp.Header.Get("Location") == "" {
		return location, end + 1, true
	}
	at, err = r.location(resp)
	return at, end + 1, err == nil
}

// sourceError is what went wrong on our side of an upload: trying again does not help.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "read the content: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// sourceFault notes the first error of the content. net/http may still read it after it gave us the answer.
type sourceFault struct {
	mu  sync.Mutex // guards err
	err error
}

func (f *sourceFault) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

// or returns the noted error, or err if there is none.
func (f *sourceFault) or(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return &sourceError{f.err}
	}
	return err
}

// openSource opens the content from offset on, such that its errors are noticed.
func openSource(ctx context.Context, b Blob, offset int64, fault *sourceFault) (io.ReadCloser, error) {
	rc, err := b.Open(ctx)
	if err != nil {
		fault.note(err)
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, rc, offset); err != nil {
		fault.note(err)
		return nil, errors.Join(err, rc.Close())
	}
	return &sourceReader{ReadCloser: rc, left: b.Size - offset, fault: fault}, nil
}

type sourceReader struct {
	io.ReadCloser
	left   int64 // bytes still to come
	fault  *sourceFault
	closed atomic.Bool
}

func (s *sourceReader) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.left -= int64(n)
	switch {
	case err == io.EOF && s.left > 0:
		err = fmt.Errorf("%d bytes are missing: %w", s.left, io.ErrUnexpectedEOF)
	case (err == nil || err == io.EOF) && s.left < 0:
		err = errors.New("there is more than announced")
	}
	if err != nil && err != io.EOF && !s.closed.Load() {
		s.fault.note(err) // an error after Close is our own doing
	}
	return n, err
}

func (s *sourceReader) Close() error {
	s.closed.Store(true)
	return s.ReadCloser.Close()
}
