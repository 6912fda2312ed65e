package spool_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hako/internal/spool"
)

func create(t *testing.T) func() (*os.File, error) {
	t.Helper()
	return func() (*os.File, error) { return os.Create(filepath.Join(t.TempDir(), "spool")) }
}

func TestSpool(t *testing.T) {
	t.Parallel()
	s := spool.New(create(t))
	contents := []string{"", "a", strings.Repeat("b", 300<<10), strings.Repeat("\x00", 1<<20), "c" + strings.Repeat("\x00", 600<<10)}
	var places []int64
	for _, c := range contents {
		at, err := s.Add(t.Context(), strings.NewReader(c), int64(len(c)))
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, at)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	for i, want := range contents {
		r, err := s.Open(places[i], int64(len(want)))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want || r.Close() != nil {
			t.Errorf("content %d: %d bytes, not %d: %v", i, len(got), len(want), err)
		}
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if _, err := s.Open(places[1], 1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := s.Add(t.Context(), strings.NewReader("x"), 1); err == nil {
		t.Error("added to what is closed")
	}
}

func TestWrongSizes(t *testing.T) {
	t.Parallel()
	s := spool.New(create(t))
	defer s.Close() //nolint:errcheck // it was only written to
	for _, size := range []int64{1, 3} {
		if _, err := s.Add(t.Context(), strings.NewReader("ab"), size); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("2 bytes for %d: %v", size, err)
		}
	}
	var nowhere spool.Spool
	if _, err := nowhere.Add(t.Context(), strings.NewReader("ab"), 2); err == nil {
		t.Error("no error without a place")
	}
}

// TestStopped: nothing more is read once the context has ended.
func TestStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	reads := 0
	hole := readFunc(func(p []byte) (int, error) {
		if reads++; reads > 100 {
			return 0, io.EOF
		}
		cancel(why)
		clear(p)
		return len(p), nil
	})
	s := spool.New(create(t))
	defer s.Close() //nolint:errcheck // it was only written to
	if _, err := s.Add(ctx, hole, 1<<40); !errors.Is(err, why) || reads != 1 {
		t.Errorf("%d reads: %v", reads, err)
	}
	if _, err := s.Add(ctx, bytes.NewReader(nil), 0); !errors.Is(err, why) {
		t.Errorf("after the end: %v", err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }
