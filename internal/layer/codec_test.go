package layer_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/tree"
)

func encoded(t testing.TB, c layer.Changes) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := layer.Encode(t.Context(), &b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestChangesSurviveTheStream(t *testing.T) {
	t.Parallel()
	for _, want := range []list{nil, sample(), {reg("f", string(randomBytes(1, 1<<20)))}} {
		b := encoded(t, want)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b))} {
			got, err := collect(t.Context(), layer.Decode(r))
			if err != nil {
				t.Fatal(err)
			}
			// The stream says the epoch where there is no time.
			withTime := append(list(nil), want...)
			for i := range withTime {
				if withTime[i].ModTime.IsZero() {
					withTime[i].ModTime = at(0)
				}
			}
			if d := cmp.Diff(withTime, got, cmp.AllowUnexported(file{})); d != "" {
				t.Error(d)
			}
		}
	}
}

func TestUnreadContentIsSkipped(t *testing.T) {
	t.Parallel()
	var got []string
	b := encoded(t, sample())
	err := layer.Decode(bytes.NewReader(b)).Each(t.Context(), func(e tree.Entry, content io.Reader) error {
		if content != nil {
			_, _ = content.Read(make([]byte, 1))
		}
		got = append(got, e.Path)
		return nil
	})
	if err != nil || len(got) != len(sample()) {
		t.Errorf("%d entries: %v", len(got), err)
	}
}

func TestGarbledStreamsAreRefused(t *testing.T) {
	t.Parallel()
	whole := encoded(t, sample())
	for n := range whole {
		if n > 300 && n < len(whole)-300 && n%97 != 0 {
			continue
		}
		if _, err := collect(t.Context(), layer.Decode(bytes.NewReader(whole[:n]))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off after %d bytes: %v", n, err)
		}
	}
	magic := "hako changes 1\n"
	huge := string(binary.AppendUvarint(nil, 1<<60))
	for name, c := range map[string]struct{ in, want string }{
		"other magic":       {"hako changes 2\n.", "garbled"},
		"unknown frame":     {magic + "x", "garbled"},
		"something after":   {string(whole) + "x", "garbled"},
		"huge header":       {magic + "e" + huge, "garbled"},
		"huge message":      {magic + "!" + huge, "garbled"},
		"endless number":    {magic + "e" + strings.Repeat("\xff", 20), "overflow"},
		"header too short":  {magic + "e\x01\x00", "garbled"},
		"header too long":   {magic + "e" + longer(whole[len(magic)+1:]), "garbled"},
		"child's own error": {magic + "!\x05oh no", `the other side says: "oh no"`},
	} {
		if _, err := collect(t.Context(), layer.Decode(strings.NewReader(c.in))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, l := range map[string]list{
		"escape": {reg("../f", "")}, "order": {reg("b", ""), reg("a", "")}, "whiteout name": {reg(".wh.f", "")},
		"opaque inside": {dir("a"), gone("a/b"), reg("a/b/c", "")}, "hard link": {hard("a", "/etc/shadow")},
	} {
		if _, err := collect(t.Context(), layer.Decode(bytes.NewReader(encoded(t, l)))); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// longer makes the first header of a stream one byte longer than what is in it.
func longer(s []byte) string {
	n, k := binary.Uvarint(s)
	out := binary.AppendUvarint(nil, n+1)
	return string(out) + string(s[k:k+int(n)]) + "x"
}

func TestStreamReportsErrorsOfBothSides(t *testing.T) {
	t.Parallel()
	errRead, errWhy, errFn := errors.New("bad sector"), errors.New("why"), errors.New("stop")
	var b bytes.Buffer
	failing := failAfter{list{reg("f", "data")}, errRead}
	if err := layer.Encode(t.Context(), &b, failing); !errors.Is(err, errRead) {
		t.Error(err)
	}
	if got, err := collect(t.Context(), layer.Decode(&b)); err == nil || !strings.Contains(err.Error(), "bad sector") || len(got) != 1 {
		t.Errorf("%d entries, %v", len(got), err)
	}
	b.Reset()
	broken := brokenChanges{reg("f", ""), iotest.ErrReader(errRead)}
	if err := layer.Encode(t.Context(), &b, broken); !errors.Is(err, errRead) {
		t.Error(err)
	}
	if _, err := collect(t.Context(), layer.Decode(&b)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errWhy)
	if err := layer.Encode(ctx, io.Discard, sample()); !errors.Is(err, errWhy) {
		t.Error(err)
	}
	if _, err := collect(ctx, layer.Decode(bytes.NewReader(encoded(t, sample())))); !errors.Is(err, errWhy) {
		t.Error(err)
	}
	err := layer.Decode(bytes.NewReader(encoded(t, sample()))).Each(t.Context(), func(tree.Entry, io.Reader) error { return errFn })
	if !errors.Is(err, errFn) {
		t.Error(err)
	}
	if err := layer.Encode(t.Context(), writerFunc(func([]byte) (int, error) { return 0, errWhy }), sample()); !errors.Is(err, errWhy) {
		t.Error(err)
	}
}

// failAfter is a change set that ends with an error.
type failAfter struct {
	list
	err error
}

func (f failAfter) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	if err := f.list.Each(ctx, fn); err != nil {
		return err
	}
	return f.err
}
