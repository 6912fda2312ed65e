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
		"no cgroups":     {nil, 0},
		"v2":             {map[string]string{"proc/self/cgroup": "0::/pod/c\n", "sys/fs/cgroup/pod/c/memory.max": "1048576\n"}, 1 << 20},
		"v2 own root":    {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "4096\n"}, 4096},
		"v2 max":         {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 0},
		"v2 of a pod":    {map[string]string{"proc/self/cgroup": "0::/pod/c\n", "sys/fs/cgroup/pod/c/memory.max": "max\n", "sys/fs/cgroup/pod/memory.max": "7\n"}, 7},
		"v1":             {map[string]string{"proc/self/cgroup": "3:cpu,cpuacct:/x\n2:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "12345\n"}, 12345},
		"v1 no limit":    {map[string]string{"proc/self/cgroup": "2:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"v1 host path":   {map[string]string{"proc/self/cgroup": "2:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "99\n"}, 99},
		"v1 and v2":      {map[string]string{"proc/self/cgroup": "2:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "99\n", "sys/fs/cgroup/memory.max": "50"}, 50},
		"v2 of a hybrid": {map[string]string{"proc/self/cgroup": "1:cpu:/\n0::/a\n", "sys/fs/cgroup/unified/a/memory.max": "77\n"}, 77},
		"v1 nested":      {map[string]string{"proc/self/cgroup": "2:memory:/p/c\n", "sys/fs/cgroup/memory/p/c/memory.limit_in_bytes": "500\n", "sys/fs/cgroup/memory/p/memory.limit_in_bytes": "300\n"}, 300},
		"negative":       {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "-1\n"}, 0},
		"too large":      {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "99999999999999999999\n"}, 0},
		"other content":  {map[string]string{"proc/self/cgroup": "x\n2:memory:/../../etc\n", "sys/fs/cgroup/memory/etc/memory.limit_in_bytes": "many\n"}, 0},
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

func TestOOMKills(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"no cgroups":   {nil, 0},
		"v2":           {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "oom 5\noom_kill 3\noom_group_kill 1\n"}, 3},
		"v1":           {map[string]string{"proc/self/cgroup": "4:memory:/kubepods/x\n", "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2},
		"old kernel":   {map[string]string{"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}, 0},
		"of the pod":   {map[string]string{"proc/self/cgroup": "0::/p/c\n", "sys/fs/cgroup/p/memory.events": "oom_kill 4\n", "sys/fs/cgroup/p/c/memory.events": "oom_kill 1\n"}, 4},
		"broken files": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.events": "oom_kill\noom_kill x y\noom_kill -7\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for p, text := range c.files {
				root[p] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := oomKills(root); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestMemoryTotal(t *testing.T) {
	t.Parallel()
	const meminfo = "MemTotal:       2048 kB\nMemFree:        1 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing known":       {nil, 0},
		"no limit":            {map[string]string{"proc/meminfo": meminfo}, 2048 << 10},
		"damaged":             {map[string]string{"proc/meminfo": "MemTotal: x kB\n", "proc/self/cgroup": "nonsense\n"}, 0},
		"no number":           {map[string]string{"proc/meminfo": "MemTotal:\n"}, 0},
		"beyond belief":       {map[string]string{"proc/meminfo": "MemTotal: 9223372036854775807 kB\n"}, 0},
		"limit":               {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		"limit, nothing else": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 1 << 20},
		"limit of no use":     {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 2048 << 10},
		"without limit":       {map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 2048 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fstest.MapFS{}
			for p, text := range c.files {
				root[p] = &fstest.MapFile{Data: []byte(text)}
			}
			if got := memoryTotal(root); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
