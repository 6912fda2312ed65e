package sentry

import (
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryTotal is how much memory we may use, in bytes: the smallest limit of our cgroup and those above it,
// or what the machine has; 0 if neither can be known.
func memoryTotal(root string) uint64 {
	total := meminfoTotal(filepath.Join(root, "proc/meminfo"))
	for _, limit := range cgroupLimits(root) {
		if total == 0 || limit < total {
			total = limit
		}
	}
	return total
}

func meminfoTotal(file string) uint64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemTotal:" {
			kib, err := strconv.ParseUint(f[1], 10, 54)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}

// cgroupLimits reads the limits of version 2 and of version 1. In a container with a cgroup namespace the group is "/";
// without one, the path in /proc/self/cgroup may be that of the host, of which only the root is to be seen.
func cgroupLimits(root string) []uint64 {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var limits []uint64
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if f[1] != "" {
			if !strings.Contains(","+f[1]+",", ",memory,") {
				continue
			}
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for group := path.Clean("/" + f[2]); ; group = path.Dir(group) {
			if limit, ok := readLimit(filepath.Join(root, dir, group, file)); ok {
				limits = append(limits, limit)
			}
			if group == "/" {
				break
			}
		}
	}
	return limits
}

func readLimit(file string) (uint64, bool) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	limit, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return limit, err == nil && limit > 0 // "max" is no limit
}
