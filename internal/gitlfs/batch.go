package gitlfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hako/internal/gitwire"
	"hako/internal/web"
)

// maxAnswer is how large an answer about a hundred files may be.
const maxAnswer = 4 << 20 // 4 MiB

// The batch API (git-lfs, docs/api/batch.md).
type (
	batchRequest struct {
		Operation string     `json:"operation"`
		Transfers []string   `json:"transfers"`
		Ref       *reference `json:"ref,omitempty"`
		Objects   []object   `json:"objects"`
		HashAlgo  string     `json:"hash_algo"`
	}
	reference struct {
		Name string `json:"name"`
	}
	object struct {
		OID  string `json:"oid"`
		Size int64  `json:"size"`
	}
	batchAnswer struct {
		Transfer string `json:"transfer"`
		HashAlgo string `json:"hash_algo"`
		Objects  []struct {
			object
			Authenticated bool             `json:"authenticated"`
			Actions       map[string]where `json:"actions"`
			Error         *struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			} `json:"error"`
		} `json:"objects"`
	}
	// where is also what git-lfs-authenticate says (git-lfs, docs/api/authentication.md).
	where struct {
		Href      string            `json:"href"`
		Header    map[string]string `json:"header"`
		ExpiresIn int64             `json:"expires_in"` // seconds
		ExpiresAt string            `json:"expires_at"` // RFC 3339
	}
)

// answerError is a server that has no file.
type answerError struct {
	status  int
	message string
}

func (e *answerError) Error() string { return web.Answer("the LFS server", e.status, e.message) }

// expiry is when an answer is not true any more; zero for never.
func (w *where) expiry(now time.Time) time.Time {
	const most = 365 * 24 * 3600 // seconds
	if w.ExpiresIn != 0 {
		return now.Add(time.Duration(min(max(w.ExpiresIn, 1), most)) * time.Second)
	}
	at, err := time.Parse(time.RFC3339, w.ExpiresAt)
	if err != nil || at.Year() <= 1 { // some servers write Go's zero time
		return time.Time{}
	}
	return at
}

func (w *where) headers() (http.Header, error) {
	out := http.Header{}
	for k, v := range w.Header {
		if strings.ContainsAny(k+v, "\r\n\x00") || k == "" {
			return nil, errors.New("the LFS server wants a header that cannot be sent")
		}
		switch http.CanonicalHeaderKey(k) {
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Range", "If-Range", "Accept-Encoding":
			continue // ours
		}
		out.Set(k, v)
	}
	return out, nil
}

// find finds out which server to ask.
func (s *Server) find(ctx context.Context) (*place, error) {
	s.mu.Lock()
	at := s.at
	s.mu.Unlock()
	if at != nil && (at.expires.IsZero() || s.options.Now().Before(at.expires.Add(-margin))) {
		return at, nil
	}
	at, err := s.discover(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = at
	return at, nil
}

func (s *Server) discover(ctx context.Context) (*place, error) {
	remote := s.options.Remote
	if s.options.URL != "" {
		u, err := url.Parse(s.options.URL)
		if err != nil {
			return nil, errors.New("the address in .lfsconfig is not valid")
		}
		switch u.Scheme {
		case "http", "https":
			u.Path = strings.TrimRight(u.Path, "/")
			return &place{url: u}, nil
		case "ssh":
			remote = s.options.URL
		default:
			return nil, fmt.Errorf("the address in .lfsconfig is neither http, https nor ssh, but %q", web.FirstLine(u.Scheme, web.Origin))
		}
	}
	if scheme, _, ok := strings.Cut(remote, "://"); ok && scheme != "ssh" {
		u, err := endpoint(remote)
		return &place{url: u}, err
	}
	return s.askSSH(ctx, remote)
}

// askSSH has the ssh server say where LFS is.
func (s *Server) askSSH(ctx context.Context, remote string) (*place, error) {
	out, err := s.options.Git.Run(ctx, remote, "git-lfs-authenticate", "download")
	if err != nil {
		return nil, err
	}
	var w where
	if err := json.Unmarshal(out, &w); err != nil {
		return nil, fmt.Errorf("git-lfs-authenticate of %s does not print JSON", gitwire.Redact(remote))
	}
	u, err := url.Parse(strings.TrimRight(w.Href, "/"))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("git-lfs-authenticate of %s names no http server", gitwire.Redact(remote))
	}
	header, err := w.headers()
	return &place{url: u, header: header, expires: w.expiry(s.options.Now())}, err
}

// batch asks the server where files are.
func (s *Server) batch(ctx context.Context, wanted []Pointer) error {
	at, err := s.find(ctx)
	if err != nil {
		return err
	}
	r := batchRequest{Operation: "download", Transfers: []string{"basic"}, HashAlgo: "sha256"}
	if s.options.Ref != "" {
		r.Ref = &reference{Name: s.options.Ref}
	}
	for _, p := range wanted {
		r.Objects = append(r.Objects, object{OID: p.OID, Size: p.Size})
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.url.String()+"/objects/batch", bytes.NewReader(body))
	if err != nil {
		return errors.New("the address of the LFS server is not valid")
	}
	for k, v := range at.header {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", mediaType+"; charset=utf-8")
	req.Header.Set("Accept", mediaType)
	resp, err := s.options.Git.Do(req, s.named)
	if err != nil {
		return err
	}
	defer web.Discard(resp.Body)
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp, data)
	}
	return s.take(ctx, at, data)
}

// refusal is what a server says that does not answer.
func refusal(resp *http.Response, data []byte) error {
	e := &answerError{status: resp.StatusCode}
	var said struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(data, &said) == nil {
		e.message = web.FirstLine(said.Message, web.Origin)
	}
	return e
}

// take notes an answer.
func (s *Server) take(ctx context.Context, at *place, data []byte) error {
	var answer batchAnswer
	if err := json.Unmarshal(data, &answer); err != nil {
		return errors.New("the LFS server's answer is not what the batch API says")
	}
	switch {
	case answer.Transfer != "" && answer.Transfer != "basic":
		return fmt.Errorf("the LFS server wants to transfer by %q", web.FirstLine(answer.Transfer, web.Origin))
	case answer.HashAlgo != "" && answer.HashAlgo != "sha256":
		return fmt.Errorf("the LFS server knows files by %q", web.FirstLine(answer.HashAlgo, web.Origin))
	}
	got := map[string]action{}
	for i := range answer.Objects {
		o := &answer.Objects[i]
		w, ok := o.Actions["download"]
		switch {
		case o.Error != nil:
			got[o.OID] = action{err: &answerError{status: o.Error.Code, message: web.FirstLine(o.Error.Message, web.Origin)}}
		case !ok:
			got[o.OID] = action{err: &answerError{status: http.StatusNotFound, message: "it does not say where the file is"}}
		default:
			a, err := s.actionOf(at, w)
			if err == nil && !o.Authenticated {
				err = s.login(ctx, at, &a)
			}
			if err != nil {
				return err
			}
			got[o.OID] = a
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for oid, a := range got {
		s.actions[oid] = a
	}
	return nil
}

// actionOf is where a file is, with what its server wants to see.
func (s *Server) actionOf(at *place, w where) (action, error) {
	u, err := at.url.Parse(w.Href)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return action{}, errors.New("the LFS server names a place that is no URL")
	}
	header, err := w.headers()
	return action{url: u, header: header, expires: w.expiry(s.options.Now())}, err
}

// login adds who we are if the answer does not say it: for the same server what that was told, for others what the user has
// for them.
func (s *Server) login(ctx context.Context, at *place, a *action) error {
	same := web.SameOrigin(a.url, at.url)
	switch {
	case a.header.Get("Authorization") != "", a.url.User != nil:
	case a.url.RawQuery != "" && !same: // it holds the right to read the file: a store that knows nothing of repositories
	case same && at.header.Get("Authorization") != "":
		a.header.Set("Authorization", at.header.Get("Authorization"))
	case same && at.url.User != nil:
		a.url.User = at.url.User
	default:
		value, err := s.options.Git.Login(ctx, a.url, s.named)
		if err != nil {
			return err
		}
		if value != "" {
			a.header.Set("Authorization", value)
		}
	}
	return nil
}
