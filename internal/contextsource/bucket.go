package contextsource

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"hako/internal/bucket"
	"hako/internal/diag"
	"hako/internal/inflate"
)

// defaultObject is the archive in a bucket if only the bucket is given, as in kaniko.
const defaultObject = "context.tar.gz"

// openBucket opens an archive in S3, Google Cloud Storage or Azure's blob storage.
func (o *opener) openBucket(ctx context.Context) (_ *Source, err error) {
	p, err := bucket.Parse(o.req.Place)
	if err != nil {
		return nil, err
	}
	if p.Key == "" && p.Service != bucket.Azure {
		p.Key = defaultObject
	}
	if p.Key == "" {
		return nil, &diag.Error{What: fmt.Sprintf("%s %s: the blob is missing", o.req.Title, p), Hint: "Write https://account.blob.core.windows.net/container/blob."}
	}
	b, err := bucket.Open(ctx, bucket.Options{Getenv: o.Getenv, Events: o.Events}, p)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	first, err := b.Read(ctx, p.Key)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, first.Close()) }()
	next := first
	return o.unpack(ctx, object{
		name: p.String(), uri: p.String(), modTime: first.Object.ModTime, size: first.Object.Size, again: true,
		open: func(ctx context.Context) (io.ReadCloser, error) {
			r := next
			next = nil
			if r == nil {
				again, err := b.Read(ctx, p.Key)
				if err != nil {
					return nil, err
				}
				r = again
			}
			return decoded(r)
		},
	})
}

// decoded undoes the Content-Encoding that tools may give what they compress while they send it. Some give it to what was
// compressed before, others to what never was, so the content has the last word.
func decoded(r *bucket.Reader) (io.ReadCloser, error) {
	if r.Object.Encoding != "gzip" {
		return r, nil
	}
	buffered := bufio.NewReaderSize(r, 64<<10)
	if head, err := buffered.Peek(2); err != nil || head[0] != 0x1f || head[1] != 0x8b {
		return readCloser{buffered, r}, nil // an error comes again when it is read
	}
	z, err := inflate.NewReader(buffered)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return readCloser{z, r}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}
