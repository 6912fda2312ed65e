package layer

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

func sampleIndex() *Index {
	at := time.Unix(1_600_000_000, 0)
	content := digest.FromString("x")
	return &Index{Entries: []IndexEntry{
		{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: at}, Offset: -1, Implied: true},
		{Entry: tree.Entry{Path: "a", Kind: tree.Dir, Mode: 0o1777, UID: 1, GID: 2, ModTime: at, Opaque: true}, Offset: -1},
		{Entry: tree.Entry{Path: "a/b", Kind: tree.Regular, Mode: 0o4755, Size: 7, ModTime: at, Xattrs: map[string]string{"user.x": "\xff\x00", "security.capability": "c"}}, Content: content, Offset: -1},
		{Entry: tree.Entry{Path: "a/c", Kind: tree.Hardlink, Linkname: "a/b", Mode: 0o4755, ModTime: at}, Content: content, Offset: -1},
		{Entry: tree.Entry{Path: "a/gone", Kind: tree.Whiteout, ModTime: at}, Offset: -1},
		{Entry: tree.Entry{Path: "a.b", Kind: tree.Symlink, Mode: 0o777, Linkname: "../../a", ModTime: at}, Offset: -1},
		{Entry: tree.Entry{Path: "dev", Kind: tree.CharDevice, Major: 5, Minor: 1, ModTime: at}, Offset: -1},
	}}
}

func encodeIndex(t testing.TB, ix *Index) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := EncodeIndex(&b, ix, Limits{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestIndexSurvives(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]*Index{"sample": sampleIndex(), "empty": {}} {
		got, err := DecodeIndex(bytes.NewReader(encodeIndex(t, want)), Limits{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
		wantID, err := (&Image{Index: want}).Digest(t.Context(), ".")
		if err != nil {
			t.Fatal(err)
		}
		if id, err := (&Image{Index: got}).Digest(t.Context(), "."); id != wantID || err != nil {
			t.Errorf("%s: another content digest: %v", name, err)
		}
	}
}

func TestBadIndexes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(ix *Index)
		want   string
	}{
		"no root":          {func(ix *Index) { ix.Entries = ix.Entries[1:] }, "the root must be a directory"},
		"order":            {func(ix *Index) { ix.Entries[1].Path = "z" }, "comes after"},
		"no directory":     {func(ix *Index) { ix.Entries[1].Path = "A" }, "its directory does not come before it"},
		"outside":          {func(ix *Index) { ix.Entries[1].Path = "../a" }, "not clean"},
		"absolute":         {func(ix *Index) { ix.Entries[1].Path = "/a" }, "not clean"},
		"link to nothing":  {func(ix *Index) { ix.Entries[3].Linkname = "a/x" }, "links to nothing"},
		"link to a later":  {func(ix *Index) { ix.Entries[3].Linkname = "dev" }, "links to nothing"},
		"content":          {func(ix *Index) { ix.Entries[2].Content = "sha256:x" }, "invalid"},
		"opaque file":      {func(ix *Index) { ix.Entries[2].Opaque = true }, "only directories"},
		"negative size":    {func(ix *Index) { ix.Entries[2].Size = -1 }, "impossible"},
		"size of a device": {func(ix *Index) { ix.Entries[6].Size = 1 }, "impossible"},
		"mode":             {func(ix *Index) { ix.Entries[2].Mode = 0o10000 }, "impossible"},
		"socket":           {func(ix *Index) { ix.Entries[6].Kind = tree.Socket }, "impossible"},
		"no kind":          {func(ix *Index) { ix.Entries[6].Kind = 0 }, "impossible"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ix := sampleIndex()
			c.change(ix)
			_, err := DecodeIndex(bytes.NewReader(encodeIndex(t, ix)), Limits{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestDamagedIndexes(t *testing.T) {
	t.Parallel()
	whole := encodeIndex(t, sampleIndex())
	for n := range whole {
		if _, err := DecodeIndex(bytes.NewReader(whole[:n]), Limits{}); err == nil {
			t.Errorf("%d of %d bytes are taken for an index", n, len(whole))
		}
	}
	if _, err := DecodeIndex(bytes.NewReader(append(whole, 0)), Limits{}); err == nil {
		t.Error("bytes behind the end are not noticed")
	}
}

// An index that is too large is neither read nor written, and an attribute counts for the memory that it takes.
func TestIndexLimits(t *testing.T) {
	t.Parallel()
	n := len(sampleIndex().Entries)
	bytesOfNames := int64(len(encodeIndex(t, sampleIndex())) - len(indexMagic) - 1 - n) // without lengths, which have one byte each
	for name, c := range map[string]struct {
		limits Limits
		fits   bool
	}{
		"just fits":        {Limits{Entries: n, NameBytes: bytesOfNames + 320}, true},
		"too many entries": {Limits{Entries: n - 1}, false},
		"too many bytes":   {Limits{NameBytes: bytesOfNames + 319}, false},
	} {
		_, err := DecodeIndex(bytes.NewReader(encodeIndex(t, sampleIndex())), c.limits)
		werr := EncodeIndex(io.Discard, sampleIndex(), c.limits)
		if (err == nil) != c.fits || (werr == nil) != c.fits {
			t.Errorf("%s: %v, %v", name, err, werr)
		}
	}
}

// FuzzDecodeIndex: whatever is taken for an index is one that can be written and read again.
func FuzzDecodeIndex(f *testing.F) {
	f.Add(encodeIndex(f, sampleIndex()))
	f.Add(encodeIndex(f, &Index{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		ix, err := DecodeIndex(bytes.NewReader(data), Limits{})
		if err != nil {
			return
		}
		again, err := DecodeIndex(bytes.NewReader(encodeIndex(t, ix)), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(ix, again, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("(-first +second)\n%s", d)
		}
	})
}
