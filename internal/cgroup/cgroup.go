// Package cgroup reads what the control groups of this process allow, of version 1 and version 2.
// The formats are those of the Linux kernel's admin-guide, cgroup-v1/memory and cgroup-v2.
package cgroup

import (
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// unlimited is above every real limit: version 1 writes "none" as the largest multiple of a page.
const unlimited = math.MaxInt64 / 2

// MemoryLimit is the most memory that this process and its children may use, in bytes; 0 means no limit, or none
// that can be read.
func MemoryLimit() int64 { return memoryLimit(os.DirFS("/")) }

func memoryLimit(root fs.FS) int64 {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	limit := int64(unlimited)
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path
		if len(fields) < 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			limit = min(limit, lowest(root, "sys/fs/cgroup", fields[2], "memory.max"))
		case hasController(fields[1], "memory"):
			limit = min(limit, lowest(root, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	if limit >= unlimited {
		return 0
	}
	return limit
}

func hasController(list, name string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}

// lowest is the lowest limit of the group and of those above it. In a container the path may be that of the host,
// of which only the end is mounted here: groups that are not there are passed over.
func lowest(root fs.FS, mount, group, file string) int64 {
	limit := int64(unlimited)
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		text, err := fs.ReadFile(root, path.Join(mount, dir, file))
		if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n > 0 {
			limit = min(limit, n)
		}
		if dir == "/" {
			return limit
		}
	}
}
