package cgroup

import (
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no cgroups":    {nil, 0},
		"v2":            {map[string]string{"proc/self/cgroup": "0::/pod/c\n", "sys/fs/cgroup/pod/c/memory.max": "1048576\n"}, 1 << 20},
		"v2 own root":   {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
		"v2 max":        {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"v2 of a pod":   {map[string]string{"proc/self/cgroup": "0::/pod/c\n", "sys/fs/cgroup/pod/c/memory.max": "max\n", "sys/fs/cgroup/pod/memory.max": "7\n"}, 7},
		"v1":            {map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "12345\n"}, 12345},
		"v1 no limit":   {map[string]string{"proc/self/cgroup": "2:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"v1 host path":  {map[string]string{"proc/self/cgroup": "2:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "99\n"}, 99},
		"v1 and v2":     {map[string]string{"proc/self/cgroup": "2:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "99\n", "sys/fs/cgroup/memory.max": "50"}, 50},
		"other content": {map[string]string{"proc/self/cgroup": "x\n2:memory:/../../etc\n", "sys/fs/cgroup/memory/etc/memory.limit_in_bytes": "many\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for p, text := range c.files {
				root[p] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memoryLimit(root); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
