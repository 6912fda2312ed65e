// Package cgroup reads what the control groups of this process allow, of version 1 and version 2.
// The formats are those of the Linux kernel's admin-guide, cgroup-v1/memory and cgroup-v2.
package cgroup

import (
	"io/fs"
	"iter"
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
	limit := int64(unlimited)
	for _, g := range memoryGroups(root) {
		limit = min(limit, lowest(root, g))
	}
	if limit >= unlimited {
		return 0
	}
	return limit
}

// MemoryTotal is how much memory there is for this process and its children, in bytes: its limit, or what the machine has, whichever
// is less; 0 if neither can be known.
func MemoryTotal() int64 { return memoryTotal(os.DirFS("/")) }

func memoryTotal(root fs.FS) int64 {
	const kibibyte = 1 << 10
	limit, machine := memoryLimit(root), field(root, "proc/meminfo", "MemTotal:")
	switch {
	case machine <= 0 || machine > unlimited/kibibyte:
		return limit
	case limit == 0:
		return machine * kibibyte
	}
	return min(limit, machine*kibibyte)
}

// OOMKills is how many processes the kernel has killed because this container, or a group above it that can be seen, had no memory
// left; 0 if that cannot be read. Only a difference means something: the count began with the group.
func OOMKills() int64 { return oomKills(os.DirFS("/")) }

func oomKills(root fs.FS) int64 {
	var most int64
	for _, g := range memoryGroups(root) {
		for dir := range g.upwards() {
			most = max(most, field(root, path.Join(dir, g.events), "oom_kill"))
		}
	}
	return most
}

// group is where one version of the hierarchy keeps what concerns memory.
type group struct {
	mount, path   string
	limit, events string // names of files
}

// upwards are the directories of the group and of those above it.
func (g group) upwards() iter.Seq[string] {
	return func(yield func(string) bool) {
		for dir := path.Join("/", g.path); ; dir = path.Dir(dir) {
			if !yield(path.Join(g.mount, dir)) || dir == "/" {
				return
			}
		}
	}
}

// memoryGroups are the groups of this process that may bound its memory. Machines with both versions at once mount version 2 at
// /sys/fs/cgroup/unified; memory is then version 1's, or, if that is not mounted, may be version 2's.
func memoryGroups(root fs.FS) []group {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return nil
	}
	var out []group
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // hierarchy:controllers:path
		if len(fields) < 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			for _, mount := range []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"} {
				out = append(out, group{mount: mount, path: fields[2], limit: "memory.max", events: "memory.events"})
			}
		case hasController(fields[1], "memory"):
			out = append(out, group{mount: "sys/fs/cgroup/memory", path: fields[2], limit: "memory.limit_in_bytes", events: "memory.oom_control"})
		}
	}
	return out
}

// field is a number in a file of lines "name number", which may have a unit, or 0.
func field(root fs.FS, file, name string) int64 {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != name {
			continue
		}
		n, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	return 0
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
func lowest(root fs.FS, g group) int64 {
	limit := int64(unlimited)
	for dir := range g.upwards() {
		text, err := fs.ReadFile(root, path.Join(dir, g.limit))
		if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n > 0 {
			limit = min(limit, n)
		}
	}
	return limit
}

// SoftLimit is how far the heap of one of our processes may grow before it is collected at any cost, as debug.SetMemoryLimit wants
// it: percent of the memory limit, or no limit.
func SoftLimit(percent int64) int64 {
	limit := MemoryLimit()
	if limit == 0 {
		return math.MaxInt64
	}
	return limit / 100 * percent
}
