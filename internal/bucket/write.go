package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
)

// abortTime bounds how long an upload that failed may be tidied up.
const abortTime = 10 * time.Second

// Write stores size bytes of from as an object, which replaces what has the key. The object appears when all of it is there;
// if from has more or fewer bytes, or ctx ends, it does not.
func (b *Bucket) Write(ctx context.Context, key string, from io.Reader, size int64) error {
	err := b.write(ctx, key, from, size)
	if err != nil {
		return b.explain(ctx, "write", key, err)
	}
	return nil
}

func (b *Bucket) write(ctx context.Context, key string, from io.Reader, size int64) error {
	if size > b.options.PartBytes {
		return b.writeParts(ctx, key, from, size)
	}
	data := make([]byte, size)
	if err := fill(from, data, 0, size); err != nil {
		return err
	}
	if err := ends(from, size); err != nil {
		return err
	}
	return b.again(ctx, "write to", func() error { return b.service.put(ctx, key, data) })
}

// fill reads all of data.
func fill(from io.Reader, data []byte, offset, size int64) error {
	n, err := io.ReadFull(from, data)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("what is to be written ends after %d of %d bytes", offset+int64(n), size)
	}
	return err
}

// ends makes sure that nothing follows.
func ends(from io.Reader, size int64) error {
	switch n, err := io.ReadFull(from, make([]byte, 1)); {
	case n != 0:
		return fmt.Errorf("what is to be written goes on after %d bytes", size)
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// maxParts is how many parts S3 allows; the others allow more.
const maxParts = 10_000

// writeParts sends an object in parts, and gives it up if anything goes wrong.
func (b *Bucket) writeParts(ctx context.Context, key string, from io.Reader, size int64) (err error) {
	var up upload
	err = b.again(ctx, "write to", func() (err error) {
		up, err = b.service.begin(ctx, key, size)
		return err
	})
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTime)
		defer cancel()
		_ = up.abort(ctx) // the error that counts is known already; services expire what is left
	}()
	if err := b.sendParts(ctx, up, from, size); err != nil {
		return err
	}
	return b.again(ctx, "write to", func() error { return up.commit(ctx) })
}

// sendParts reads one part after the other, and sends as many at once as the service and the window allow.
func (b *Bucket) sendParts(ctx context.Context, up upload, from io.Reader, size int64) error {
	length := max(b.options.PartBytes, (size/maxParts+1<<20)&^(1<<20-1))
	count := max(min(int64(up.width()), b.options.Window/length), 1)
	free := make(chan []byte, count)
	for range count {
		free <- nil
	}
	g, gctx := errgroup.WithContext(ctx)
	for number, offset := 0, int64(0); offset < size; number, offset = number+1, offset+length {
		var buffer []byte
		select {
		case buffer = <-free:
		case <-gctx.Done():
			return g.Wait()
		}
		if buffer == nil {
			buffer = make([]byte, length)
		}
		data := buffer[:min(length, size-offset)]
		err := fill(from, data, offset, size)
		if err == nil && offset+length >= size {
			err = ends(from, size) // before the last part: with it, the object may appear
		}
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			err := b.again(gctx, "write to", func() error { return up.part(gctx, number, offset, data) })
			free <- buffer
			return err
		})
	}
	return g.Wait()
}
