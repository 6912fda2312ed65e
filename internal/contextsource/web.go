package contextsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"hako/internal/buildcontext"
	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/web"
)

// webContextFile is what a Dockerfile that was fetched is called in its context, as for BuildKit.
const webContextFile = "context"

// openWebFile fetches an archive, or a Dockerfile, by http or https.
func (o *opener) openWebFile(ctx context.Context) (_ *Source, err error) {
	place, sum, err := splitDigest(o.req.Place)
	if err != nil {
		return nil, err
	}
	f, err := o.Download.Fetch(ctx, download.Request{URL: place, Checksum: sum, MaxBytes: o.MaxBytes})
	if err != nil {
		return nil, o.explainLimit(err)
	}
	from := object{
		name: redacted(place), uri: redacted(place), digest: f.Digest.String(), modTime: f.ModTime, size: f.Size, again: true, quiet: true,
		open: func(context.Context) (io.ReadCloser, error) { return f.Reader(), nil },
	}
	head, err := io.ReadAll(io.LimitReader(f.Reader(), sniffed))
	if err != nil {
		return nil, errors.Join(o.explainArchive(ctx, &from, readError{err}), f.Close())
	}
	switch kind := sniff(head); kind {
	case nothing, page:
		return nil, errors.Join(o.notArchive(&from, kind), f.Close())
	case text:
		return o.fetchedDockerfile(&from, f)
	}
	s, err := o.unpack(ctx, from)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return s, nil
}

// notArchive says what a server sent in place of an archive.
func (o *opener) notArchive(from *object, kind content) error {
	e := &diag.Error{What: fmt.Sprintf("%s %s: the server sent an empty file", o.req.Title, from.name), Hint: "Check the URL."}
	if kind == page {
		e.What = fmt.Sprintf("%s %s: the server sent a page for people (HTML), not an archive", o.req.Title, from.name)
		e.Hint = "Give the address of the file itself; many servers send a page where a login is needed."
	}
	return e
}

// fetchedDockerfile is the source that is nothing but a Dockerfile.
func (o *opener) fetchedDockerfile(from *object, f *download.File) (*Source, error) {
	content, err := readDockerfile(f.Reader())
	if err != nil {
		err = &diag.Error{What: "read the Dockerfile " + from.name, Cause: err}
		return nil, errors.Join(err, f.Close())
	}
	s := &Source{
		Tree: f.Tree(webContextFile, o.Now), Name: from.name, URI: from.uri, Digest: from.digest,
		Dockerfile: &buildcontext.File{Name: from.name, Content: content}, closers: []func() error{f.Close},
	}
	if !from.modTime.IsZero() {
		s.Time = &from.modTime
	}
	return s, nil
}

// FetchDockerfile fetches a Dockerfile by http or https. What the user can mend is a *diag.Error.
func FetchDockerfile(ctx context.Context, client *download.Client, place string) (_ *buildcontext.File, err error) {
	place, sum, err := splitDigest(place)
	if err != nil {
		return nil, err
	}
	f, err := client.Fetch(ctx, download.Request{URL: place, Checksum: sum})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	content, err := readDockerfile(f.Reader())
	if err == nil && sniff(content[:min(len(content), sniffed)]) == page {
		err = errors.New("the server sent a page for people (HTML), not a Dockerfile")
	}
	if err != nil {
		return nil, &diag.Error{What: "read the Dockerfile " + redacted(place), Cause: err, Hint: "Give the address of the file itself."}
	}
	return &buildcontext.File{Name: redacted(place), Content: content}, nil
}

// splitDigest takes the digest off a URL: "#sha256=…".
func splitDigest(place string) (string, digest.Digest, error) {
	place, fragment, ok := strings.Cut(place, "#")
	if !ok || fragment == "" {
		return place, "", nil
	}
	algorithm, hex, _ := strings.Cut(fragment, "=")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), hex)
	if err := d.Validate(); err != nil {
		return "", "", &diag.Error{
			What: fmt.Sprintf("%s#%s: it is not a digest", redacted(place), fragment), Cause: err,
			Hint: "Write #sha256= and 64 hexadecimal digits, or no # at all.",
		}
	}
	return place, d, nil
}

// redacted is what may be said of a URL.
func redacted(place string) string {
	u, err := url.Parse(place)
	if err != nil {
		scheme, _, _ := strings.Cut(place, "://")
		return scheme + "://…"
	}
	return web.RedactURL(u)
}
