package prepared

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

// The end of a file: the list as layer.EncodeIndex writes it, the offsets of its regular files in the image (uvarint, one more
// than the offset, zero for none), the footer as JSON, its length (4 bytes, little endian), and the magic.
const (
	magic     = "hako prepared 1\n"
	maxFooter = 4 << 10 // 4 KiB
	maxList   = 4 << 30 // 4 GiB
)

// footer says what a file holds.
type footer struct {
	DiffID digest.Digest `json:"diffID"`
	// Image is the size of the EROFS image in bytes; the list follows, of List bytes, of which Offsets are the offsets.
	Image, List, Offsets int64
	// Sum is the digest of list and offsets.
	Sum digest.Digest `json:"sum"`
	// Time is the time of modification that the file has, in nanoseconds since 1970.
	Time int64 `json:"time"`
	// Boot is the run of the machine in which it was made, if it is good for that only.
	Boot string `json:"boot,omitempty"`
}

var (
	errFooter  = errors.New("it has no footer, or not one that fits")
	errTouched = errors.New("it was changed after it was made")
	errSum     = errors.New("its list is damaged")
)

// appendFooter writes list and footer behind the image, whose size is foot.Image, and returns the size of the whole.
func appendFooter(f *os.File, foot *footer, ix *layer.Index) error {
	var list bytes.Buffer
	if err := layer.EncodeIndex(&list, ix, layer.Limits{}); err != nil {
		return err
	}
	names := list.Len()
	var buf []byte
	for i := range ix.Entries {
		e := &ix.Entries[i]
		buf = binary.AppendUvarint(buf[:0], uint64(e.Offset+1)) //nolint:gosec // never below -1
		list.Write(buf)
	}
	foot.List, foot.Offsets = int64(list.Len()), int64(list.Len()-names)
	foot.Sum = digest.FromBytes(list.Bytes())
	data, err := json.Marshal(foot)
	if err != nil {
		return err
	}
	list.Write(data)
	list.Write(binary.LittleEndian.AppendUint32(nil, uint32(len(data)))) //nolint:gosec // a few hundred bytes
	list.WriteString(magic)
	_, err = f.WriteAt(list.Bytes(), foot.Image)
	return err
}

// readFooter reads the footer of a file of that size.
func readFooter(f io.ReaderAt, size int64) (*footer, error) {
	const tailSize = 4 + len(magic)
	tail := make([]byte, tailSize)
	if size < int64(tailSize) {
		return nil, errFooter
	}
	if _, err := f.ReadAt(tail, size-int64(tailSize)); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(tail))
	if string(tail[4:]) != magic || n > maxFooter || n > size-int64(tailSize) {
		return nil, errFooter
	}
	data := make([]byte, n)
	if _, err := f.ReadAt(data, size-int64(tailSize)-n); err != nil {
		return nil, err
	}
	foot := &footer{}
	if err := json.Unmarshal(data, foot); err != nil {
		return nil, fmt.Errorf("%w: %w", errFooter, err)
	}
	if foot.Image <= 0 || foot.List <= 0 || foot.List > maxList || foot.Offsets < 0 || foot.Offsets > foot.List ||
		foot.Image > size || foot.Image+foot.List != size-int64(tailSize)-n {
		return nil, errFooter
	}
	return foot, nil
}

// index reads and checks the list.
func (foot *footer) index(f io.ReaderAt) (*layer.Index, error) {
	list := make([]byte, foot.List)
	if _, err := f.ReadAt(list, foot.Image); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(list)
	if digest.NewDigestFromBytes(digest.SHA256, sum[:]) != foot.Sum {
		return nil, errSum
	}
	names, offsets := list[:foot.List-foot.Offsets], list[foot.List-foot.Offsets:]
	ix, err := layer.DecodeIndex(bytes.NewReader(names), layer.Limits{})
	if err != nil {
		return nil, err
	}
	for i := range ix.Entries {
		e := &ix.Entries[i]
		at, n := binary.Uvarint(offsets)
		if n <= 0 {
			return nil, errSum
		}
		offsets = offsets[n:]
		holds := e.Kind == tree.Regular || e.Kind == tree.Hardlink
		switch {
		case at == 0 && (e.Kind != tree.Regular || e.Size == 0):
			e.Offset = -1
		case at == 0 || !holds || at-1 > uint64(foot.Image) || e.Size > foot.Image-int64(at-1): //nolint:gosec // not above Image
			return nil, errSum
		default:
			e.Offset = int64(at - 1) //nolint:gosec // as above
		}
	}
	if len(offsets) > 0 {
		return nil, errSum
	}
	return ix, nil
}
