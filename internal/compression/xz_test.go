package compression

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ulikunitz/xz"
)

func packXZ(t testing.TB, text string, c xz.WriterConfig) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpackXZ(data []byte) (string, error) {
	x, err := newXZReader(bufio.NewReader(bytes.NewReader(data)))
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(iotest.OneByteReader(x))
	return string(out), err
}

// noise is text that does not become much smaller.
func noise(n int) string {
	var b strings.Builder
	for x := uint32(1); b.Len() < n; x = x*1664525 + 1013904223 {
		b.WriteByte(byte(x >> 24))
	}
	return b.String()
}

// variants are files with all that the format has and the program xz makes.
func variants(t testing.TB) map[string][]byte {
	text := strings.Repeat("hako ", 100) + noise(300)
	out := map[string][]byte{"nothing": packXZ(t, "", xz.WriterConfig{})}
	for name, check := range map[string]byte{"crc32": xz.CRC32, "crc64": xz.CRC64, "sha256": xz.SHA256} {
		out[name] = packXZ(t, text, xz.WriterConfig{CheckSum: check})
	}
	out["none"] = packXZ(t, text, xz.WriterConfig{NoCheckSum: true})
	out["blocks"] = packXZ(t, text, xz.WriterConfig{BlockSize: 100, DictCap: 4096})
	zeros := make([]byte, 8)
	out["streams"] = bytes.Join([][]byte{out["crc32"], nil, out["blocks"], out["nothing"], out["none"], nil}, zeros)
	return out
}

// TestXZ compares with the reader of the library.
func TestXZ(t *testing.T) {
	t.Parallel()
	for name, data := range variants(t) {
		want, err := theirs(data)
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := unpackXZ(data); err != nil || got != want {
			t.Errorf("%s: %d bytes, not %d: %v", name, len(got), len(want), err)
		}
	}
}

func theirs(data []byte) (string, error) {
	r, err := xz.NewReader(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	out, err := io.ReadAll(r)
	return string(out), err
}

// TestDamagedXZ: whatever byte is changed, the content is not, or there is an error; and wherever the file ends.
func TestDamagedXZ(t *testing.T) {
	t.Parallel()
	data := packXZ(t, strings.Repeat("hako ", 20)+noise(100), xz.WriterConfig{BlockSize: 80, DictCap: 4096})
	want, err := unpackXZ(data)
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		if _, err := unpackXZ(data[:i]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		bad := bytes.Clone(data)
		bad[i] ^= 0x10
		if got, err := unpackXZ(bad); err == nil && got != want { // LZMA2 does not mind a chunk that is longer than it needs
			t.Errorf("byte %d changed: no error", i)
		}
	}
	if _, err := unpackXZ(append(bytes.Clone(data), "garbage"...)); err == nil {
		t.Error("garbage at the end")
	}
}

// TestXZBomb: room is not made for what a block claims to need.
func TestXZBomb(t *testing.T) {
	t.Parallel()
	data := packXZ(t, "x", xz.WriterConfig{})
	head := data[12:][:(int(data[12])+1)*4]
	head[bytes.Index(head, []byte{lzma2Filter, 1})+2] = 40 // 4 GiB - 1
	binary.LittleEndian.PutUint32(head[len(head)-4:], crc32.ChecksumIEEE(head[:len(head)-4]))
	if _, err := unpackXZ(data); !errors.Is(err, errXZNeeds) {
		t.Errorf("got %v", err)
	}
}

func FuzzXZ(f *testing.F) {
	for _, data := range variants(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := unpackXZ(data)
		if err != nil {
			return
		}
		if want, err := theirs(data); err != nil || got != want {
			t.Errorf("%d bytes, not %d: %v", len(got), len(want), err)
		}
	})
}
