package registrytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"
)

// Fault is something that goes wrong with some requests. Which: Method, Path, Skip, Times. What: the rest;
// of it, the first that is set.
type Fault struct {
	// Method and Path choose requests: the method (empty is any), and a part of the path.
	Method, Path string
	// Skip lets the first requests through; Times is how many then fail, 0 all of them.
	Skip, Times int

	// Status answers with that code, Header and Body, instead of asking the registry.
	Status int
	Header http.Header
	Body   string
	// Endless answers with a body that does not end.
	Endless bool
	// Hang never answers; it ends with the client.
	Hang bool
	// Reset closes the connection without an answer.
	Reset bool
	// LoseAnswer lets the registry do its work, then closes the connection without an answer.
	LoseAnswer bool
	// TakeOnly lets the registry have that many bytes of the request's body, then closes the connection without an answer.
	TakeOnly int64
	// CutAfter sends that many bytes of the body, then closes the connection. StallAfter then sends nothing more.
	CutAfter, StallAfter int64
	// Corrupt flips a bit in the middle of the body.
	Corrupt bool
	// IgnoreRange answers as if there were no Range header.
	IgnoreRange bool
	// Delay waits before the registry answers properly.
	Delay time.Duration
	// Rewrite changes the body.
	Rewrite func([]byte) []byte
}

// fault finds the fault for the request and counts it.
func (r *Registry) fault(req *http.Request) *Fault {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.faults {
		if f.Times < 0 || (f.Method != "" && f.Method != req.Method) || !strings.Contains(req.URL.Path, f.Path) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1 // used up
			}
		}
		return f
	}
	return nil
}

// act misbehaves; answer is how to behave.
func (f *Fault) act(w http.ResponseWriter, req *http.Request, answer http.HandlerFunc) {
	switch {
	case f.Status != 0:
		for key, values := range f.Header {
			w.Header()[key] = values
		}
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body) // a test's client
	case f.Endless:
		endless(w)
	case f.Hang:
		_, _ = io.Copy(io.Discard, req.Body) // until the client goes
		<-req.Context().Done()
	case f.Reset:
		panic(http.ErrAbortHandler)
	case f.TakeOnly > 0:
		req.Body = io.NopCloser(io.LimitReader(req.Body, f.TakeOnly))
		answer(httptest.NewRecorder(), req)
		panic(http.ErrAbortHandler)
	case f.Delay > 0:
		select {
		case <-time.After(f.Delay):
			answer(w, req)
		case <-req.Context().Done():
		}
	default:
		f.spoil(w, req, answer)
	}
}

func endless(w http.ResponseWriter) {
	chunk := []byte(strings.Repeat(" ", 64<<10))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// spoil lets the registry answer and damages that.
func (f *Fault) spoil(w http.ResponseWriter, req *http.Request, answer http.HandlerFunc) {
	if f.IgnoreRange {
		req.Header.Del("Range")
	}
	rec := httptest.NewRecorder()
	answer(rec, req)
	if f.LoseAnswer {
		panic(http.ErrAbortHandler)
	}
	body := rec.Body.Bytes()
	if f.Corrupt && len(body) > 0 {
		body[len(body)/2] ^= 0x20
	}
	if f.Rewrite != nil {
		body = f.Rewrite(body)
		rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
		rec.Header().Del("Docker-Content-Digest")
	}
	for key, values := range rec.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(rec.Code)
	cut := max(f.CutAfter, f.StallAfter)
	if cut == 0 || cut >= int64(len(body)) {
		_, _ = w.Write(body) // a test's client
		return
	}
	_, _ = w.Write(body[:cut]) // likewise
	_ = http.NewResponseController(w).Flush()
	if f.StallAfter > 0 {
		<-req.Context().Done()
		return
	}
	panic(http.ErrAbortHandler)
}
