package filecopy

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hako/internal/tree"
)

const (
	capabilityXattr = "security.capability"
	userXattrs      = "user."
)

// keptXattrs are those of x that a new layer has: capabilities and, other than with BuildKit, those of users.
// The others are labels of the machine or of a file system.
func keptXattrs(x map[string]string) map[string]string {
	if len(x) == 0 {
		return nil
	}
	out := maps.Clone(x)
	maps.DeleteFunc(out, func(name, _ string) bool { return !keepsXattr(name) })
	return out
}

func keepsXattr(name string) bool {
	return name == capabilityXattr || strings.HasPrefix(name, userXattrs) && !strings.HasPrefix(name, "user.overlay.")
}

// archiveXattrs returns the extended attributes that an entry gives its file, which is of kind k.
// What the kernel would not take is an error, as no other machine could unpack the layer.
func archiveXattrs(h *tar.Header, k tree.Kind) (map[string]string, error) {
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok || !keepsXattr(name) {
			continue
		}
		value := h.PAXRecords[key]
		if name == capabilityXattr {
			if !validCapability(value) {
				return nil, fmt.Errorf("attribute %s: %w", name, errXattr)
			}
			out[name] = value
			continue
		}
		const maxName, maxValue = 255, 64 << 10 // XATTR_NAME_MAX and XATTR_SIZE_MAX of Linux
		if name == userXattrs || len(name) > maxName || len(value) > maxValue {
			return nil, fmt.Errorf("attribute %.60q: %w", name, errXattr)
		}
		if k == tree.Regular || k == tree.Dir { // others cannot have it, xattr(7)
			out[name] = value
		}
	}
	return out, nil
}

var errXattr = errors.New("no file can have it")

// validCapability says whether Linux takes s for the capabilities of a file: revision 2 or 3 of capabilities(7).
func validCapability(s string) bool {
	const revision, revision2, revision3 = 0xff000000, 0x02000000, 0x03000000
	if len(s) < 4 {
		return false
	}
	magic := binary.LittleEndian.Uint32([]byte(s)) & revision
	return magic == revision2 && len(s) == 20 || magic == revision3 && len(s) == 24
}
