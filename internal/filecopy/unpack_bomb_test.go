package filecopy_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"hako/internal/filecopy"
	"hako/internal/tree"
)

// endless is a tree of one file that never ends.
type endless struct {
	*file
	block []byte
	stop  func() // called after some megabytes
}

func (e *endless) Open(string) (io.ReadCloser, error) {
	return io.NopCloser(&endlessReader{endless: e}), nil
}

type endlessReader struct {
	*endless
	n int
}

func (e *endlessReader) Read(p []byte) (int, error) {
	const enough = 16 << 20
	done := 0
	for done < len(p) {
		m := copy(p[done:], e.block[e.n%len(e.block):])
		done += m
		if e.n += m; e.n > enough {
			e.stop()
		}
		if e.n > 100*enough {
			return done, io.ErrNoProgress
		}
	}
	return done, nil
}

// longName is the header of a name that follows, without what it names.
func longName() []byte {
	const size = 1 << 19
	h := make([]byte, 512)
	copy(h, "././@LongLink")
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        L", size))
	copy(h[257:], "ustar  \x00")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h, bytes.Repeat([]byte("n"), size)...)
}

func TestEndlessArchiveIsCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("somebody pressed a key")
	from := &endless{file: newFile(t, "a.tar", nil), block: longName(), stop: func() { cancel(why) }}
	_, err := filecopy.Copy(ctx, &filecopy.Request{From: from, Paths: []string{"/a.tar"}, Dest: "/", Add: true, Unpack: true})
	if !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
}

// TestHolesTakeNoRoom unpacks a sparse file of 64 MiB.
func TestHolesTakeNoRoom(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	list := fmt.Sprintf("1\n%d\n3\n", size-512)
	data := sparseArchive(t, size, list+strings.Repeat("\x00", 512-len(list))+"abc")
	var spooled *os.File
	spool := func() (_ *os.File, err error) {
		spooled, err = os.Create(filepath.Join(t.TempDir(), "spool"))
		return spooled, err
	}
	changes, err := filecopy.Copy(t.Context(), &filecopy.Request{
		From: newFile(t, "a.tar", data), Paths: []string{"/a.tar"}, Dest: "/", Add: true, Unpack: true, Spool: spool,
	})
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(spooled.Fd()), &st); err != nil || st.Blocks*512 > 1<<20 || st.Size != size {
		t.Errorf("the spool takes %d of %d bytes, %v", st.Blocks*512, st.Size, err)
	}
	err = changes.Each(t.Context(), func(e tree.Entry, content io.Reader) error {
		if content == nil {
			return nil
		}
		if _, err := io.CopyN(io.Discard, content, size-512); err != nil {
			return err
		}
		rest, err := io.ReadAll(content)
		if want := "abc" + strings.Repeat("\x00", 509); string(rest) != want {
			t.Errorf("the end is %q", rest)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := changes.Close(); err != nil {
		t.Error(err)
	}
}

// sparseArchive is a tar, in the PAX format 1.0, of a file whose data has the list of its parts in front.
func sparseArchive(t *testing.T, size int64, data string) []byte {
	t.Helper()
	pax := ""
	for _, record := range []string{"major=1", "minor=0", "name=hole", fmt.Sprintf("realsize=%d", size)} {
		record = " GNU.sparse." + record + "\n"
		pax += fmt.Sprintf("%d%s", len(record)+2, record) // the length has two digits
	}
	return slices.Concat(member(t, tar.TypeXHeader, pax), member(t, tar.TypeReg, data), make([]byte, 1024))
}

// member is an entry of a tar of a kind that tar.Writer refuses.
func member(t *testing.T, kind byte, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "x", Size: int64(len(content)), Mode: 0o644, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	h := b.Bytes()
	h[156] = kind
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	padding := (512 - len(content)%512) % 512
	return append(append(h, content...), make([]byte, padding)...)
}

// TestMemoryOfArchives bounds what an entry costs until the layer is written. Nothing runs beside it.
func TestMemoryOfArchives(t *testing.T) {
	const entries, bytesPerEntry = 50_000, 300
	var data bytes.Buffer
	w := tar.NewWriter(&data)
	for i := range entries {
		h := &tar.Header{Name: fmt.Sprintf("usr/share/package-%02d/some-directory/file-number-%05d", i/1000, i), Mode: 0o644, Size: 1}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	from := newFile(t, "a.tar", data.Bytes())
	before := heap()
	c, err := filecopy.Copy(t.Context(), &filecopy.Request{
		From: from, Paths: []string{"/a.tar"}, Dest: "/", Add: true, Unpack: true,
		Spool: func() (*os.File, error) { return os.Create(filepath.Join(t.TempDir(), "spool")) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := (heap() - before) / entries; got > bytesPerEntry {
		t.Errorf("an entry takes %d bytes, want at most %d", got, bytesPerEntry)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // not that large
}
