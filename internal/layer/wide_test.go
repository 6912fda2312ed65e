package layer

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestWideWindows(t *testing.T) {
	t.Parallel()
	stream := func(window int) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithSingleSegment(false))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // more than a frame that says its size
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, stream(1<<20)...)
	for name, tt := range map[string]struct {
		data []byte
		want bool
	}{
		"gzip": {[]byte{0x1f, 0x8b, 8, 0}, false}, "plain": {make([]byte, 100), false}, "empty": {nil, false},
		"usual": {stream(8 << 20), false}, "wide": {stream(16 << 20), true}, "unknown": {skippable, true},
		"cut": {stream(1 << 20)[:5], true},
	} {
		if got := wideWindow(bufio.NewReader(bytes.NewReader(tt.data))); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
