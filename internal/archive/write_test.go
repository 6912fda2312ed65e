package archive_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/archive"
	"hako/internal/tree/treetest"
)

// What is written and unpacked again is the same tree, and the same bytes when it is written again.
func TestWrite(t *testing.T) {
	t.Parallel()
	text := lines(`
		a/ 0711 0:0 @5
		a/b 04755 0:0 @9 x:user.note=hi = content
		a/c => a/b
		caf` + "\xe9" + ` 0644 0:0 @0 = x
		dev/ 0755 0:0 @0
		dev/null 0666 0:0 @0 c1:3
		dev/sda 0600 0:0 @0 b8:0
		fifo 0644 0:0 @0 fifo
		l 0:0 @0 -> ../../etc/passwd
	`)
	first := pack2(t, text)
	tr, err := unpack(t, first, options(t))
	if err != nil {
		t.Fatal(err)
	}
	got, err := treetest.Dump(tr)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, got); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	var again bytes.Buffer
	if _, err := archive.Write(t.Context(), tr, &again); err != nil || !bytes.Equal(first, again.Bytes()) {
		t.Errorf("written again: %d bytes, want %d, %v", again.Len(), len(first), err)
	}
}

func pack2(t *testing.T, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	if n, err := archive.Write(t.Context(), treetest.New(t, text), &buf); err != nil || n != 9 {
		t.Fatalf("%d entries, %v", n, err)
	}
	return buf.Bytes()
}

func TestWriteStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if _, err := archive.Write(ctx, treetest.New(t, "a = x"), &bytes.Buffer{}); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
