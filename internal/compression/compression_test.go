package compression_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"hako/internal/compression"
)

// bzip2Hello is what bzip2 makes of "hello\n".
const bzip2Hello = "BZh91AY&SY\xc1\xc0\x80\xe2\x00\x00\x01A\x00\x00\x10\x02D\xa0\x000\xcd\x00\xc3F)\x97\x17rE8P\x90\xc1\xc0\x80\xe2"

func TestNewReader(t *testing.T) {
	t.Parallel()
	pack := func(open func(io.Writer) (io.WriteCloser, error)) string {
		var buf bytes.Buffer
		w, err := open(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "hello\n"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return buf.String()
	}
	packed := map[string]string{
		"gzip":  pack(func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"zstd":  pack(func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"xz":    pack(func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"bzip2": bzip2Hello,
		"none":  "hello\n",
	}
	for name, data := range packed {
		got, err := read(data)
		if err != nil || got != "hello\n" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if is := compression.Compressed([]byte(data)); is != (name != "none") {
			t.Errorf("%s: compressed is %v", name, is)
		}
		if name == "none" {
			continue
		}
		if got, err := read(data[:len(data)-5]); err == nil {
			t.Errorf("%s, cut off: %q", name, got)
		}
	}
	for _, s := range []string{"", "BZ", "\x1f\x8b"} {
		if got, err := read(s); err != nil || got != s {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
}

func read(data string) (string, error) {
	r, err := compression.NewReader(bytes.NewReader([]byte(data)))
	if err != nil {
		return "", err
	}
	got, err := io.ReadAll(r)
	return string(got), errors.Join(err, r.Close())
}
