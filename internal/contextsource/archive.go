package contextsource

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/archive"
	"hako/internal/buildcontext"
	"hako/internal/compression"
	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/gitpack"
)

// object is one file with an archive, from wherever it comes.
type object struct {
	// name is what people call it, without secrets. uri names it to others; empty for what only this machine knows.
	name, uri string
	// digest is that of the whole file, as "sha256:…"; where it is empty, it is found out on the way.
	digest string
	// modTime is when the file was changed last; the zero value if that is not known.
	modTime time.Time
	// size is in bytes; 0 if it is not known. It is for the progress only.
	size int64
	// open reads the file from its start. What it says is wrong is for people, if it is a *diag.Error.
	open func(ctx context.Context) (io.ReadCloser, error)
	// again says that open may be called more than once.
	again bool
	// quiet says that the progress is told elsewhere.
	quiet bool
}

// unpack makes a source of an archive, whatever it is compressed with. The object is not needed any more when it returns.
func (o *opener) unpack(ctx context.Context, from object) (*Source, error) {
	start := time.Now()
	s, err := o.unpackOnce(ctx, &from, o.sieve(ctx))
	var needed *archive.NeededError
	if errors.As(err, &needed) && from.again {
		o.Events.Emit(event.Debug{Message: fmt.Sprintf("%s: %s; it is read once more", from.name, needed)})
		s, err = o.unpackOnce(ctx, &from, nil)
	}
	if err != nil {
		return nil, o.explainArchive(ctx, &from, err)
	}
	o.Events.Emit(event.Span{Name: "unpack " + from.name, Start: start, End: time.Now()})
	return s, nil
}

// sieve says whose content need not be kept.
func (o *opener) sieve(ctx context.Context) archive.Sieve {
	return buildcontext.NewSieve(ctx, buildcontext.Options{
		SubPath: o.req.SubPath, Dockerfile: o.req.Dockerfile, Given: o.req.Given, Cwd: o.Cwd,
	}, o.req.Further)
}

// readError is a failure to read an object, as opposed to one of what is in it.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

// marked is a reader whose failures are readErrors.
type marked struct{ r io.Reader }

func (m marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // a Reader returns it as it is
		err = readError{err}
	}
	return n, err
}

// unpackOnce reads the object to its end.
func (o *opener) unpackOnce(ctx context.Context, from *object, sieve archive.Sieve) (_ *Source, err error) {
	raw, err := from.open(ctx)
	if err != nil {
		return nil, readError{err}
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	var in io.Reader = marked{raw}
	if !from.quiet {
		counter := event.NewCounter(in, o.Events, event.Progress{ID: "context " + from.name, What: from.name, Total: from.size})
		defer counter.Finish()
		in = counter
	}
	hash := sha256.New()
	if from.digest == "" {
		in = io.TeeReader(in, hash)
	}
	plain, err := compression.NewReader(in)
	if err != nil {
		return nil, err
	}
	defer plain.Close() //nolint:errcheck // nothing was written
	t, err := archive.Unpack(ctx, plain, archive.Options{
		File: o.File, Now: o.Now, Sieve: sieve, Limits: archive.Limits{Bytes: o.MaxBytes},
		Warn: func(text string) { o.Events.Emit(event.Warning{Message: from.name + ": " + text}) },
	})
	if err != nil {
		return nil, err
	}
	s := &Source{Tree: t, Name: from.name, URI: from.uri, Digest: from.digest, closers: []func() error{t.Close}}
	if !from.modTime.IsZero() {
		s.Time = &from.modTime
	}
	if from.digest == "" {
		if _, err := io.Copy(io.Discard, in); err != nil {
			return nil, errors.Join(err, t.Close())
		}
		s.Digest = digest.NewDigest(digest.SHA256, hash).String()
	}
	return s, nil
}

const memoryHint = "Mount a volume at /tmp or /kaniko: there is only memory to unpack into, and not enough of it."

// explainLimit says what to do about something that was too large for the memory that it would have been put into.
func (o *opener) explainLimit(err error) error {
	var known *diag.Error
	if o.MaxBytes == 0 || !errors.Is(err, gitpack.ErrTooMuch) && !errors.Is(err, download.ErrTooBig) || !errors.As(err, &known) {
		return err
	}
	e := *known
	e.Hint = memoryHint
	return &e
}

// explainArchive turns an error into one for people.
func (o *opener) explainArchive(ctx context.Context, from *object, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *diag.Error
	if errors.As(err, &known) {
		return known
	}
	e := &diag.Error{What: fmt.Sprintf("unpack %s %s", o.req.Title, from.name), Cause: err}
	var needed *archive.NeededError
	var failed readError
	switch {
	case errors.As(err, &needed):
		e.Hint = "Put the ignore file at the start of the archive, or give the archive as a file: tar:///path."
	case errors.Is(err, syscall.ENOSPC):
		e.Hint = "Free space in the work directory, or choose another place with --kaniko-dir."
	case errors.As(err, &failed):
		e.Cause = failed.error
		e.What = fmt.Sprintf("read %s %s", o.req.Title, from.name)
		if errors.As(err, new(*IncompleteError)) {
			e.Hint = "Send it again: the connection that it came by has lost something."
		}
	case errors.Is(err, archive.ErrTooMuch) && o.MaxBytes > 0:
		e.Hint = memoryHint
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Hint = "Check that whatever made the archive ended well, and that it was copied whole."
	case errors.Is(err, archive.ErrNoArchive):
		e.Hint = "Give a tar archive; its compression is told by its content, whatever its name."
	}
	return e
}

// openArchiveFile opens "tar://" and a path, which may be relative.
func (o *opener) openArchiveFile(ctx context.Context) (*Source, error) {
	name := strings.TrimPrefix(o.req.Place, "tar://")
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.Cwd, path)
	}
	bad := func(err error) error {
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return &diag.Error{What: fmt.Sprintf("open %s %s", o.req.Title, o.req.Place), Cause: err,
			Hint: fmt.Sprintf("Give a tar archive that exists and can be read with %s.", o.req.Flag)}
	}
	fi, err := os.Stat(path)
	if err == nil && fi.IsDir() {
		err = errors.New("it is a directory")
	}
	if err != nil {
		return nil, bad(err)
	}
	from := object{name: name, again: fi.Mode().IsRegular()}
	if fi.Mode().IsRegular() {
		from.size = fi.Size()
	}
	from.open = func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, bad(err)
		}
		return f, nil
	}
	return o.unpack(ctx, from)
}
