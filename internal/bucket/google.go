//go:build !slim

package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"hako/internal/web"
)

const (
	googleScope = "https://www.googleapis.com/auth/devstorage.read_write"
	googleBase  = "https://storage.googleapis.com"
	answerLimit = 1 << 20  // of errors
	listLimit   = 64 << 20 // of a page of a listing
)

// googleService speaks Google Cloud Storage's JSON protocol. Google's own library would bring gRPC and several times the
// code of all the other clouds into the program, for five kinds of requests.
type googleService struct {
	base   string // scheme and host
	bucket string
	http   *http.Client
	tokens oauth2.TokenSource // nil: nobody in particular
}

var _ service = (*googleService)(nil)

// connectGoogle takes application default credentials: a key file, workload identity, or the metadata server. An emulator
// needs none.
func (b *Bucket) connectGoogle(ctx context.Context) error {
	client := b.client(web.NewTransport())
	s := &googleService{base: googleBase, bucket: b.place.Bucket, http: client}
	b.service = s
	if emulator := b.options.env("STORAGE_EMULATOR_HOST"); emulator != "" {
		if !strings.Contains(emulator, "://") {
			emulator = "http://" + emulator
		}
		s.base = strings.TrimSuffix(emulator, "/")
		return nil
	}
	// Tokens are renewed long after this call: with the values of ctx, not its end.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.closers = append(b.closers, cancel)
	defer context.AfterFunc(ctx, cancel)()
	found, err := google.FindDefaultCredentials(context.WithValue(life, oauth2.HTTPClient, &http.Client{Transport: client.Transport}), googleScope)
	if err == nil {
		_, err = found.TokenSource.Token()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		b.anonymous = err
		return nil
	}
	s.tokens = found.TokenSource
	return nil
}

// do sends a request and returns its answer, whose body the caller closes, if its status is one of ok.
func (s *googleService) do(req *http.Request, ok ...int) (*http.Response, error) {
	if s.tokens != nil {
		t, err := s.tokens.Token()
		if err != nil {
			return nil, tokenError(err)
		}
		t.SetAuthHeader(req)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	for _, status := range ok {
		if resp.StatusCode == status {
			return resp, nil
		}
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	return nil, googleAnswer(resp)
}

// tokenError is the refusal to give a token.
func tokenError(err error) error {
	var re *oauth2.RetrieveError
	if !errors.As(err, &re) || re.Response == nil {
		return fmt.Errorf("get a token from Google: %w", web.OneLine(err, redact))
	}
	a := &answer{status: re.Response.StatusCode, code: re.ErrorCode, message: "no token: " + web.FirstLine(re.ErrorDescription, redact)}
	if !web.TemporaryStatus(a.status) {
		a.reason = unknownUser
	}
	return a
}

// googleAnswer reads a refusal.
func googleAnswer(resp *http.Response) error {
	a := &answer{status: resp.StatusCode}
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit))
	if err == nil {
		a.message = web.FirstLine(googleMessage(body), redact)
	}
	a.reason = reasonOf(a.status, "")
	if a.status == http.StatusNotFound && strings.Contains(a.message, "bucket does not exist") {
		a.reason = noBucket
	}
	if a.status == http.StatusForbidden && strings.Contains(a.message, "ate limit") { // "Rate Limit Exceeded"
		a.reason, a.status = other, http.StatusTooManyRequests
	}
	return a
}

// googleMessage is what an error says, which is JSON from some requests and text from others.
func googleMessage(body []byte) string {
	var document struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &document) == nil {
		return document.Error.Message
	}
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")) {
		return "" // a page
	}
	return string(body)
}

// request makes a request below the bucket.
func (s *googleService) request(ctx context.Context, method, path string, query url.Values, body []byte) (*http.Request, error) {
	u := s.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	var from io.Reader
	if body != nil {
		from = bytes.NewReader(body)
	}
	return http.NewRequestWithContext(ctx, method, u, from)
}

func (s *googleService) object(key string) string {
	return "/storage/v1/b/" + url.PathEscape(s.bucket) + "/o/" + url.PathEscape(key)
}

func (s *googleService) get(ctx context.Context, r request) (*response, error) {
	query := url.Values{"alt": {"media"}}
	if r.version != "" {
		query.Set("generation", r.version)
	}
	if r.match != "" {
		query.Set("ifGenerationMatch", r.match)
	}
	req, err := s.request(ctx, http.MethodGet, s.object(r.key), query, nil)
	if err != nil {
		return nil, err
	}
	// What was stored with a content encoding is wanted as it was stored: only so can parts of it be read.
	req.Header.Set("Accept-Encoding", "gzip")
	if r.length != 0 {
		req.Header.Set("Range", rangeHeader(r))
	}
	resp, err := s.do(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	size, err := whole(r, resp.Header.Get("Content-Range"), resp.ContentLength)
	if err == nil && size < 0 {
		err = &answer{reason: rangeIgnored}
	}
	if err != nil {
		_ = resp.Body.Close() // not what we asked for
		return nil, err
	}
	o := Object{Key: r.key, Size: size, Version: resp.Header.Get("X-Goog-Generation"), Encoding: resp.Header.Get("Content-Encoding")}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		o.ModTime = t
	}
	return &response{Object: o, body: resp.Body}, nil
}

func (s *googleService) put(ctx context.Context, key string, data []byte) error {
	if data == nil {
		data = []byte{}
	}
	req, err := s.request(ctx, http.MethodPost, s.uploads(), url.Values{"uploadType": {"media"}, "name": {key}}, data)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	return s.finish(req, http.StatusOK, http.StatusCreated)
}

func (s *googleService) uploads() string {
	return "/upload/storage/v1/b/" + url.PathEscape(s.bucket) + "/o"
}

// finish sends a request whose answer does not matter if it is one of ok.
func (s *googleService) finish(req *http.Request, ok ...int) error {
	resp, err := s.do(req, ok...)
	if err != nil {
		return err
	}
	web.Discard(resp.Body)
	return nil
}

func (s *googleService) list(ctx context.Context, prefix, after string) ([]Object, string, error) {
	query := url.Values{"fields": {"nextPageToken,items(name,size,updated,generation)"}}
	if prefix != "" {
		query.Set("prefix", prefix)
	}
	if after != "" {
		query.Set("pageToken", after)
	}
	req, err := s.request(ctx, http.MethodGet, "/storage/v1/b/"+url.PathEscape(s.bucket)+"/o", query, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.do(req, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	var page struct {
		NextPageToken string `json:"nextPageToken"`
		Items         []struct {
			Name       string    `json:"name"`
			Size       string    `json:"size"`
			Updated    time.Time `json:"updated"`
			Generation string    `json:"generation"`
		} `json:"items"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, listLimit)).Decode(&page); err != nil {
		return nil, "", fmt.Errorf("read the listing: %w", err)
	}
	var objects []Object
	for _, i := range page.Items {
		size, err := strconv.ParseInt(i.Size, 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("read the listing: %w", err)
		}
		objects = append(objects, Object{Key: i.Name, Size: size, ModTime: i.Updated, Version: i.Generation})
	}
	return objects, page.NextPageToken, nil
}

func (s *googleService) remove(ctx context.Context, key string) error {
	req, err := s.request(ctx, http.MethodDelete, s.object(key), nil, nil)
	if err != nil {
		return err
	}
	return s.finish(req, http.StatusOK, http.StatusNoContent)
}

func (s *googleService) begin(ctx context.Context, key string, size int64) (upload, error) {
	req, err := s.request(ctx, http.MethodPost, s.uploads(), url.Values{"uploadType": {"resumable"}, "name": {key}}, []byte{})
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Upload-Content-Type", "application/octet-stream")
	resp, err := s.do(req, http.StatusOK, http.StatusCreated)
	if err != nil {
		return nil, err
	}
	web.Discard(resp.Body)
	session, err := resp.Location()
	if err != nil {
		return nil, errors.New("begin an upload: the answer has no address to upload to")
	}
	return &googleUpload{s: s, session: session.String(), size: size}, nil
}

// googleUpload is a resumable upload. It ends with the part that holds the last byte.
type googleUpload struct {
	s       *googleService
	session string // a secret
	size    int64
}

// width is one: the service takes parts in order only.
func (u *googleUpload) width() int { return 1 }

func (u *googleUpload) part(ctx context.Context, _ int, offset int64, data []byte) error {
	end := offset + int64(len(data))
	status := http.StatusPermanentRedirect // "resume incomplete"
	if end == u.size {
		status = http.StatusOK
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, u.session, bytes.NewReader(data))
	if err != nil {
		return errors.New("the address to upload to cannot be read")
	}
	req.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", offset, end-1, u.size))
	resp, err := u.s.do(req, status, http.StatusCreated)
	if err != nil {
		return err
	}
	defer web.Discard(resp.Body)
	if status == http.StatusOK {
		return nil
	}
	if want := fmt.Sprintf("bytes=0-%d", end-1); resp.Header.Get("Range") != want {
		return u.rest(ctx, resp.Header.Get("Range"), offset, data)
	}
	return nil
}

// rest sends what the service did not keep of a part: it may take less than it was sent.
func (u *googleUpload) rest(ctx context.Context, kept string, offset int64, data []byte) error {
	var last int64
	if _, err := fmt.Sscanf(kept, "bytes=0-%d", &last); err != nil || last+1 <= offset || last+1 >= offset+int64(len(data)) {
		return fmt.Errorf("the server kept %q of an upload: that cannot be", kept)
	}
	return u.part(ctx, 0, last+1, data[last+1-offset:])
}

func (u *googleUpload) commit(context.Context) error { return nil }

func (u *googleUpload) abort(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u.session, nil)
	if err != nil {
		return err
	}
	const canceled = 499 // "client closed request": what the service answers
	return u.s.finish(req, http.StatusNoContent, http.StatusOK, canceled)
}
