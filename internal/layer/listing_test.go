package layer

import (
	"errors"
	"io"
	"testing"

	"hako/internal/tree"
)

func TestListingReadsWhatIsAtHandAndOpensForTheRest(t *testing.T) {
	t.Parallel()
	index := &Index{Entries: []IndexEntry{
		{Entry: tree.Entry{Path: "etc/passwd", Kind: tree.Regular, Size: 4}, Offset: -1},
		{Entry: tree.Entry{Path: "usr/big", Kind: tree.Regular, Size: 4}, Offset: -1},
	}}
	closed := errors.New("the blob is gone")
	im := Listing(index, map[string][]byte{"etc/passwd": []byte("root")}, func() (*Image, error) { return nil, closed })
	got, err := io.ReadAll(im.Content(&index.Entries[0]))
	if err != nil || string(got) != "root" {
		t.Errorf("etc/passwd: %q, %v", got, err)
	}
	if _, err := io.ReadAll(im.Content(&index.Entries[1])); !errors.Is(err, closed) {
		t.Errorf("usr/big: %v, want %v", err, closed)
	}
}
