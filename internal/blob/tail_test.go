package blob_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/iotest"

	"hako/internal/blob"
)

// Many readers that begin at different times all see the whole blob.
func TestTail(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			w, err := s.Create(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var want []byte
			write := func(n int) {
				data := bytes.Repeat([]byte{byte(n)}, n*1000)
				want = append(want, data...)
				if _, err := w.Write(data); err != nil {
					t.Fatal(err)
				}
			}
			write(1)
			tail, err := w.Tail()
			if err != nil {
				t.Fatal(err)
			}
			var readers sync.WaitGroup
			got := make([][]byte, 4)
			for i := range got {
				r := tail.Open()
				readers.Go(func() {
					var in io.Reader = r
					if i%2 == 1 {
						in = iotest.OneByteReader(r)
					}
					data, err := io.ReadAll(in)
					if err != nil {
						t.Error(err)
					}
					got[i] = data
				})
				write(i + 2)
			}
			if _, _, err := w.Commit(""); err != nil {
				t.Fatal(err)
			}
			late, err := io.ReadAll(tail.Open())
			if err != nil {
				t.Fatal(err)
			}
			readers.Wait()
			for i, g := range append(got, late) {
				if !bytes.Equal(g, want) {
					t.Errorf("reader %d has %d bytes of %d", i, len(g), len(want))
				}
			}
			if err := tail.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTailOfADroppedBlob(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			for what, tt := range map[string]struct {
				end  func(w *blob.Writer, tail *blob.Tail, r io.Closer) error
				want error
			}{
				"dropped":        {func(w *blob.Writer, _ *blob.Tail, _ io.Closer) error { return w.Close() }, blob.ErrDropped},
				"tail closed":    {func(_ *blob.Writer, tail *blob.Tail, _ io.Closer) error { return tail.Close() }, os.ErrClosed},
				"reader closed":  {func(_ *blob.Writer, _ *blob.Tail, r io.Closer) error { return r.Close() }, os.ErrClosed},
				"wrong digest":   {func(w *blob.Writer, _ *blob.Tail, _ io.Closer) error { return wrong(w) }, blob.ErrDropped},
				"closed at last": {func(w *blob.Writer, tail *blob.Tail, _ io.Closer) error { return errors.Join(w.Close(), tail.Close()) }, nil},
			} {
				w, err := s.Create(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				tail, err := w.Tail()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(w, "data"); err != nil {
					t.Fatal(err)
				}
				r := tail.Open()
				if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
					t.Fatal(err)
				}
				result := make(chan error)
				go func() {
					_, err := r.Read(make([]byte, 1))
					result <- err
				}()
				if err := tt.end(w, tail, r); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if err := <-result; err == nil || err == io.EOF || tt.want != nil && !errors.Is(err, tt.want) {
					t.Errorf("%s: the reader gets %v", what, err)
				}
				_, _ = w.Close(), tail.Close()
			}
		})
	}
}

// wrong commits under a digest that the blob does not have, which must fail.
func wrong(w *blob.Writer) error {
	if _, _, err := w.Commit("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"); err == nil {
		return errors.New("committed")
	}
	return nil
}
