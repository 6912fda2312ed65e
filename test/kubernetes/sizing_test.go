package kubernetes

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// sizes are the builds of the table in docs/kubernetes.md; golang is Debian with a Go tool chain.
func sizes(busybox, debian, golang string) []struct{ name, dockerfile string } {
	return []struct{ name, dockerfile string }{
		{"copy", "FROM " + busybox + "\nCOPY Dockerfile /\n"},
		{"run", "FROM " + busybox + "\nRUN id\n"},
		{"debian", "FROM " + debian + "\nRUN useradd -m u; cp -a /usr/share /usr/share2; cp -a /usr/lib /usr/lib2; rm -rf /usr/share/doc\n"},
		{"many", "FROM " + debian + "\nRUN mkdir /many && cd /many && seq 35000 | split -l 1 -a 4 - f && ls | wc -l\nRUN ls -l /many | wc -l && mkdir /some && cp /many/fa* /some\n"},
		{"go", "FROM " + golang + ` AS b
WORKDIR /src
RUN printf 'package main\nimport ("fmt";"net/http")\nfunc main(){fmt.Println(http.StatusOK)}\n' >main.go && printf 'module x\ngo 1.24\n' >go.mod && CGO_ENABLED=0 GOFLAGS=-buildvcs=false /usr/local/go/bin/go build -o /x .
FROM ` + busybox + "\nCOPY --from=b /x /x\n"},
		{"gigabyte", "FROM " + debian + " AS a\nRUN head -c 1073741824 /dev/urandom >/big\nFROM " + busybox + "\nCOPY --from=a /big /big\n"},
	}
}

// testSizing prints the rows of the table of sizes in docs/kubernetes.md. HAKO_TEST_SIZING holds the limits of the pods, as "2Gi 2".
// The pods have to run on this machine.
func testSizing(t *testing.T, f *fixture) {
	var memory, cpu string
	if _, err := fmt.Sscan(os.Getenv("HAKO_TEST_SIZING"), &memory, &cpu); err != nil {
		t.Fatal("HAKO_TEST_SIZING wants two limits, as: 2Gi 2: ", err)
	}
	ns := f.namespace(t, "restricted")
	debian := must[string](t)(f.debian())
	golang := f.inPod(f.registry.Addr) + "/library/golang"
	file := filepath.Join(f.writeFiles(t, map[string]string{"Dockerfile": "FROM " + debian + "\nCOPY . /usr/local/go\n"}), "Dockerfile")
	must[string](t)(lab.Must(t.Context(), f.hako, "build", strings.TrimSpace(must[string](t)(lab.Must(t.Context(), "go", "env", "GOROOT"))), "-f", file, "-t", golang, "--insecure", "--insecure-pull"))
	for _, s := range sizes(must[string](t)(f.busybox()), debian, golang) {
		f.configMap(t, ns, s.name, map[string]string{"Dockerfile": s.dockerfile})
		p := pod{
			Name: s.name, Args: []string{"--context=dir:///workspace", "--destination=" + f.inPod(f.registry.Addr) + "/sizes:" + s.name, "--insecure", "--insecure-pull"},
			Volumes: map[string]map[string]any{"/workspace": {"configMap": map[string]any{"name": s.name}}},
			Change: func(spec map[string]any) {
				spec["containers"].([]any)[0].(map[string]any)["resources"] = map[string]any{
					"limits": map[string]any{"memory": memory, "cpu": cpu}, "requests": map[string]any{"memory": "1Mi", "cpu": "1m"},
				}
			},
		}
		f.apply(t, ns, p.manifest(t, f))
		w := f.watchSize(t, ns, s.name)
		start := time.Now()
		succeed(t, f.awaitPod(t, ns, s.name))
		close(w.stop)
		<-w.stopped
		t.Logf("%-10s %4d MiB of memory, %5d MiB of disk, %s, with %s and %s CPU", s.name, w.memory>>20, w.disk>>20, time.Since(start).Round(time.Second), memory, cpu)
	}
}

// watcher looks at a pod from outside, until it is told to stop.
type watcher struct {
	uid           string
	memory, disk  int64 // the peaks, in bytes
	stop, stopped chan struct{}
}

func (f *fixture) watchSize(t *testing.T, ns, name string) *watcher {
	t.Helper()
	var object struct{ Metadata struct{ UID string } }
	if err := json.Unmarshal([]byte(f.mustKubectl(t, "", "-n", ns, "get", "pod", name, "-o", "json")), &object); err != nil {
		t.Fatal(err)
	}
	w := &watcher{uid: object.Metadata.UID, stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(w.stopped)
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			groups := w.groups()
			for _, dir := range groups {
				w.memory = max(w.memory, anonymous(dir))
			}
			if n%8 == 0 {
				w.disk = max(w.disk, disk(groups))
			}
		}
	}()
	return w
}

// groups are the control groups of the pod's containers, of either version.
func (w *watcher) groups() []string {
	var out []string
	for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil || !d.IsDir():
			case root == "/sys/fs/cgroup" && filepath.Dir(path) == root && fileExists(filepath.Join(path, "cgroup.clone_children")):
				return fs.SkipDir // a hierarchy of version 1
			case strings.Contains(filepath.Dir(path), w.uid) || strings.Contains(filepath.Dir(path), strings.ReplaceAll(w.uid, "-", "_")):
				out = append(out, path)
				return fs.SkipDir
			}
			return nil
		})
	}
	return out
}

func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// anonymous is the memory of a group that is no cache.
func anonymous(dir string) int64 {
	text, _ := os.ReadFile(filepath.Join(dir, "memory.stat")) // the group may be gone
	var sum int64
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && (f[0] == "rss" || f[0] == "anon" || f[0] == "shmem") {
			n, _ := strconv.ParseInt(f[1], 10, 64) // the kernel writes numbers
			sum += n
		}
	}
	return sum
}

// disk is what the files take that processes of these groups have open below /tmp, most of which have no name, and those with a name
// in the work directory.
func disk(groups []string) int64 {
	seen := map[uint64]int64{}
	count := func(name string) {
		var st syscall.Stat_t
		if syscall.Stat(name, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			seen[st.Ino] = st.Blocks * 512
		}
	}
	for _, dir := range groups {
		text, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")) // the group may be gone
		for pid := range strings.FieldsSeq(string(text)) {
			if comm, _ := os.ReadFile("/proc/" + pid + "/comm"); string(comm) != "executor\n" && string(comm) != "exe\n" {
				continue // runc, which begins in the machine's own root directory
			}
			open, _ := filepath.Glob("/proc/" + pid + "/fd/*") // likewise
			for _, fd := range open {
				if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "/tmp/") {
					count(fd)
				}
			}
			_ = filepath.WalkDir("/proc/"+pid+"/root/tmp", func(path string, _ fs.DirEntry, err error) error {
				if err == nil {
					count(path)
				}
				return nil
			})
		}
	}
	var sum int64
	for _, n := range seen {
		sum += n
	}
	return sum
}
