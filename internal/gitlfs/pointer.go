package gitlfs

import (
	"encoding/hex"
	"strconv"
	"strings"
)

// MaxPointer is the size that a pointer is smaller than (git-lfs, docs/spec.md).
const MaxPointer = 1024

// Pointer is what a repository has in the place of a large file.
type Pointer struct {
	// OID is the sha256 of the file, in 64 hexadecimal digits.
	OID string
	// Size is in bytes.
	Size int64
	// Extended says that the file went through an extension of the user's, which would have to undo that.
	Extended bool
}

// ParsePointer reads a pointer (git-lfs, docs/spec.md). ok is false if data is something else: then it is the file itself.
func ParsePointer(data []byte) (p Pointer, ok bool) {
	if len(data) == 0 || len(data) >= MaxPointer {
		return Pointer{}, false
	}
	values := map[string]string{}
	for n, line := range strings.Split(strings.TrimRight(string(data), "\r\n"), "\n") {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\r"), " ")
		if _, twice := values[key]; !ok || twice || n == 0 && key != "version" {
			return Pointer{}, false
		}
		values[key] = value
		p.Extended = p.Extended || strings.HasPrefix(key, "ext-")
	}
	switch values["version"] {
	case "https://git-lfs.github.com/spec/v1",
		"https://hawser.github.com/spec/v1", "http://git-media.io/v/2": // before it had its name
	default:
		return Pointer{}, false
	}
	oid, isSHA := strings.CutPrefix(values["oid"], "sha256:")
	raw, err := hex.DecodeString(oid)
	if !isSHA || err != nil || len(raw) != 32 || oid != strings.ToLower(oid) {
		return Pointer{}, false
	}
	size, err := strconv.ParseInt(values["size"], 10, 64)
	if err != nil || size < 0 {
		return Pointer{}, false
	}
	p.OID, p.Size = oid, size
	return p, true
}
