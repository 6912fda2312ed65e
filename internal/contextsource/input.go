package contextsource

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"hako/internal/archive"
	"hako/internal/buildcontext"
	"hako/internal/compression"
	"hako/internal/diag"
)

// standardInputName is what people call it.
const standardInputName = "standard input"

// openStandardInput reads an archive, or a Dockerfile, from standard input.
func (o *opener) openStandardInput(ctx context.Context) (*Source, error) {
	promised, err := parsePromise(o.req.Place)
	if err != nil {
		return nil, err
	}
	in, err := checkInput(o.req.Input, o.req.Title)
	if err != nil {
		return nil, err
	}
	from := object{name: standardInputName}
	if promised == nil {
		in = &untilDone{ctx, in}
	} else {
		k, stop := promised.keep(ctx, in)
		defer stop()
		in, from.size = k, max(0, promised.size)
	}
	buffered := bufio.NewReaderSize(in, 64<<10)
	from.open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(buffered), nil }
	head, err := buffered.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, o.explainArchive(ctx, &from, readError{err})
	}
	switch sniff(head) {
	case nothing:
		return nil, &diag.Error{What: "there is nothing on standard input", Hint: inputHint}
	case text:
		content, err := readDockerfile(buffered)
		if err != nil {
			return nil, &diag.Error{What: "read the Dockerfile from standard input", Cause: err}
		}
		return &Source{Tree: archive.Empty(o.Now), Name: standardInputName, Dockerfile: &buildcontext.File{Name: "Dockerfile", Content: content}}, nil
	}
	return o.unpack(ctx, from)
}

const inputHint = "Pipe an archive: tar -c . | …; with docker run and kubectl run, keep standard input open with -i."

// checkInput returns standard input if something can be read from it; title is what for.
func checkInput(in io.Reader, title string) (io.Reader, error) {
	if in == nil {
		return nil, &diag.Error{What: title + ": there is no standard input", Hint: inputHint}
	}
	f, ok := in.(*os.File)
	if !ok {
		return in, nil
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, &diag.Error{What: title + ": standard input cannot be read", Cause: err, Hint: inputHint}
	}
	if fi.Mode()&os.ModeCharDevice != 0 {
		return nil, &diag.Error{What: title + ": standard input is a terminal, or empty", Hint: inputHint}
	}
	return in, nil
}

// untilDone is a reader whose reads end with a context, even while they wait. Of a read that was given up, what arrives
// later is lost. It is for streams that cannot be closed from outside.
type untilDone struct {
	ctx context.Context //nolint:containedctx // io.Reader has no place for it; it lives as long as one stream
	r   io.Reader
}

type readResult struct {
	n   int
	err error
}

// Read reads on.
func (u *untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	if u.ctx.Done() == nil {
		return u.r.Read(p)
	}
	own := make([]byte, len(p)) // p is the caller's again when the read is given up
	done := make(chan readResult, 1)
	go func() {
		n, err := u.r.Read(own)
		done <- readResult{n, err}
	}()
	select {
	case got := <-done:
		return copy(p, own[:got.n]), got.err
	case <-u.ctx.Done():
		return 0, context.Cause(u.ctx)
	}
}

// content is what the beginning of a file looks like.
type content uint8

const (
	nothing content = iota + 1
	archived
	text
	page // HTML or XML: a Dockerfile does not begin like that
	binary
)

// sniffed is how much of a file is looked at.
const sniffed = 1024

// sniff tells an archive from a Dockerfile.
func sniff(head []byte) content {
	switch {
	case len(head) == 0:
		return nothing
	case compression.Compressed(head):
		return archived
	}
	if len(head) >= 512 {
		_, err := tar.NewReader(bytes.NewReader(head)).Next()
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return archived
		}
	}
	start := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	switch {
	case bytes.HasPrefix(start, []byte("<")):
		return page
	case bytes.IndexByte(head, 0) >= 0 || !mostlyUTF8(head):
		return binary
	}
	return text
}

// mostlyUTF8 says whether b is text, but for a character that was cut at the end.
func mostlyUTF8(b []byte) bool {
	for i := range min(utf8.UTFMax, len(b)) {
		if utf8.Valid(b[:len(b)-i]) {
			return true
		}
	}
	return false
}

// maxDockerfile is the size of a Dockerfile that is read at most.
const maxDockerfile = 16 << 20 // 16 MiB

// readDockerfile reads a Dockerfile that is no file of a context.
func readDockerfile(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err == nil && len(b) > maxDockerfile {
		err = fmt.Errorf("it is larger than %d MiB", maxDockerfile>>20)
	}
	return b, err
}

// ReadDockerfile reads a Dockerfile from standard input, which the context's place must not be. What the user can mend is a *diag.Error.
func ReadDockerfile(ctx context.Context, in io.Reader, place string) (*buildcontext.File, error) {
	if IsStandardInput(place) {
		return nil, &diag.Error{What: "the context and the Dockerfile cannot both be standard input", Hint: "Give one of them as a file."}
	}
	in, err := checkInput(in, "Dockerfile")
	if err != nil {
		return nil, err
	}
	content, err := readDockerfile(&untilDone{ctx, in})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, &diag.Error{What: "read the Dockerfile from standard input", Cause: err}
	}
	return &buildcontext.File{Name: "Dockerfile", Content: content}, nil
}
