package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sampleEvery is how often memory is looked at while a builder works.
const sampleEvery = 20 * time.Millisecond

// usage is what one build took.
type usage struct {
	wall, cpu time.Duration
	// peakBytes is the most anonymous and shared memory of all processes of the group at once: what cannot be dropped.
	peakBytes int64
	// builderBytes is the most anonymous memory of the builder's own process: without its sandbox, steps and daemons.
	// It is 0 where the builder is not hako or kaniko.
	builderBytes int64
}

func (u usage) String() string {
	return fmt.Sprintf("%.2f s wall, %.2f s CPU, %d MB, %d MB of it the builder", u.wall.Seconds(), u.cpu.Seconds(), u.peakBytes/1e6, u.builderBytes/1e6)
}

// cgroup is a control group, of either version. Path is the same under every hierarchy.
type cgroup struct {
	path string
	v2   bool
}

const cgroupRoot = "/sys/fs/cgroup"

// newCgroup makes a control group at path ("/hako-bench/x").
func newCgroup(path string) (*cgroup, error) {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	g := &cgroup{path: path, v2: err == nil}
	for _, d := range g.dirs() {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make control group %s: %w", path, err)
		}
		if g.v2 {
			control := filepath.Join(filepath.Dir(d), "cgroup.subtree_control")
			if err := os.WriteFile(control, []byte("+cpu +memory"), 0o644); err != nil {
				return nil, fmt.Errorf("make control group %s: %w", path, err)
			}
		}
	}
	return g, nil
}

// dirs are the group's directories: one, or one for each hierarchy that we read.
func (g *cgroup) dirs() []string {
	if g.v2 {
		return []string{filepath.Join(cgroupRoot, g.path)}
	}
	return []string{filepath.Join(cgroupRoot, "cpuacct", g.path), filepath.Join(cgroupRoot, "memory", g.path)}
}

// enter is a shell command that moves the shell into the group; what it starts stays there.
func (g *cgroup) enter() string {
	var b strings.Builder
	for _, d := range g.dirs() {
		fmt.Fprintf(&b, "echo $$ > %s/cgroup.procs && ", d)
	}
	return b.String()
}

// cpu is the CPU time that the group and those below it have used.
func (g *cgroup) cpu() (time.Duration, error) {
	if g.v2 {
		micros, err := field(filepath.Join(g.dirs()[0], "cpu.stat"), "usage_usec")
		return time.Duration(micros) * time.Microsecond, err
	}
	text, err := os.ReadFile(filepath.Join(g.dirs()[0], "cpuacct.usage"))
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	nanos, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return time.Duration(nanos), err
}

// memory is the anonymous and shared memory of the group and those below it, in bytes.
func (g *cgroup) memory() int64 {
	names := [2]string{"total_rss", "total_shmem"}
	if g.v2 {
		names = [2]string{"anon", "shmem"}
	}
	stat := filepath.Join(g.dirs()[len(g.dirs())-1], "memory.stat")
	anon, _ := field(stat, names[0])  // a sample more or less
	shmem, _ := field(stat, names[1]) // likewise
	return anon + shmem
}

// field reads "name value" from a file.
func field(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("read %s: %s has no such line", name, file)
}

// measure runs work and says what the group used meanwhile. What a daemon in the group holds before is not counted.
func (g *cgroup) measure(ctx context.Context, work func(context.Context) error) (usage, error) {
	before, err := g.cpu()
	if err != nil {
		return usage{}, err
	}
	idle := g.memory()
	end, done := make(chan struct{}), make(chan usage)
	go func() { done <- g.peak(end) }()
	start := time.Now()
	err = work(ctx)
	wall := time.Since(start)
	close(end)
	u := <-done
	u.wall, u.peakBytes = wall, max(u.peakBytes-idle, 0)
	if err != nil {
		return u, err
	}
	after, err := g.cpu()
	u.cpu = after - before
	return u, err
}

// peak samples the memory of the group and of the builder in it until end.
func (g *cgroup) peak(end <-chan struct{}) usage {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	var peak usage
	for {
		peak.peakBytes = max(peak.peakBytes, g.memory())
		peak.builderBytes = max(peak.builderBytes, g.builderMemory())
		select {
		case <-end:
			return peak
		case <-tick.C:
		}
	}
}

// builderMemory is the anonymous memory of the first process in the group that is hako's or kaniko's, in bytes; 0 without one.
func (g *cgroup) builderMemory() int64 {
	first := ""
	for _, pid := range processes(g.dirs()[0]) {
		name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm")) // it may have ended
		switch strings.TrimSpace(string(name)) {
		case "hako", "executor":
		default:
			continue
		}
		if first == "" || len(pid) < len(first) || len(pid) == len(first) && pid < first {
			first = pid
		}
	}
	if first == "" {
		return 0
	}
	kilobytes, _ := field(filepath.Join("/proc", first, "status"), "RssAnon:") // it may have ended
	return kilobytes << 10
}

// processes are the process IDs in the group dir and those below it.
func processes(dir string) []string {
	text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // it may be gone
	pids := strings.Fields(string(text))
	entries, _ := os.ReadDir(dir) // likewise
	for _, e := range entries {
		if e.IsDir() {
			pids = append(pids, processes(filepath.Join(dir, e.Name()))...)
		}
	}
	return pids
}

// remove removes the group under every hierarchy, where engines may have made it too, and the groups below it that
// ended containers have left. The last group removed takes what holds them all with it.
func (g *cgroup) remove() error {
	var dirs []string
	for _, pattern := range []string{cgroupRoot + g.path, cgroupRoot + "/*" + g.path} {
		found, _ := filepath.Glob(pattern) // the pattern is well formed
		dirs = append(dirs, found...)
	}
	for _, d := range dirs {
		if err := removeGroups(d); err != nil {
			return fmt.Errorf("remove control group %s: %w", g.path, err)
		}
		_ = os.Remove(filepath.Dir(d)) // fails while others are in it
	}
	return nil
}

// removeGroups removes the directory of a group, after those in it. Its files cannot be removed and go with it.
func removeGroups(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeGroups(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return os.Remove(dir)
}
