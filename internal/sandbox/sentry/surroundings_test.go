package sentry

import (
	"os"
	"path/filepath"
	"testing"
)

// files makes a directory with these files.
func files(t *testing.T, content map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range content {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestMemoryTotal(t *testing.T) {
	t.Parallel()
	const meminfo = "MemTotal:       2048 kB\nMemFree:        1 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"nothing known": {nil, 0},
		"no limit":      {map[string]string{"proc/meminfo": meminfo}, 2048 << 10},
		"damaged":       {map[string]string{"proc/meminfo": "MemTotal: x kB\n", "proc/self/cgroup": "nonsense\n"}, 0},
		"version 2": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n",
		}, 1 << 20},
		"version 2 without limit": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 2048 << 10},
		"version 2, limit above": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n",
			"sys/fs/cgroup/a/memory.max": "65536\n",
		}, 1 << 16},
		"version 1, path of the host": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "131072\n",
		}, 1 << 17},
		"version 1 without limit": {map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 2048 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := memoryTotal(files(t, c.files)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
