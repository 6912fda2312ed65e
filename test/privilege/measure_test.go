package privilege

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/lab"
)

// memoryPeak is the most anonymous resident memory seen, in bytes: of the first process of a container, and of the
// largest of the processes below it.
type memoryPeak struct{ builder, others int64 }

// watchMemory samples the process pid and its descendants until stop is called; the peak is valid after that.
func watchMemory(t *testing.T, pid int) (peak *memoryPeak, stop func()) {
	t.Helper()
	peak = &memoryPeak{}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.builder = max(peak.builder, anonymous(pid))
			for _, child := range descendants(pid) {
				peak.others = max(peak.others, anonymous(child))
			}
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return peak, func() { close(end); <-done }
}

// anonymous is a process's anonymous resident memory in bytes; zero if it has ended.
func anonymous(pid int) int64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // a process may end at any time
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64) // the kernel's own format
			return kib << 10
		}
	}
	return 0
}

// descendants are the processes below pid.
func descendants(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	var all []int
	for _, f := range files {
		text, _ := os.ReadFile(f) // a process may end at any time
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// writeBig writes 2 GiB of which a part can be compressed.
func writeBig(t *testing.T, file string) {
	t.Helper()
	w, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(block[:1<<20]) // never fails
	for range (2 << 30) / len(block) {
		if _, err := w.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// readFile reads one file of the image ref: from the topmost layer that has it.
func (f *fixture) readFile(t *testing.T, r *lab.Registry, ref, file string) string {
	t.Helper()
	img := must[v1.Image](t)(r.Image(t.Context(), ref))
	layers := must[[]v1.Layer](t)(img.Layers())
	for i := len(layers) - 1; i >= 0; i-- {
		rc := must[io.ReadCloser](t)(layers[i].Uncompressed())
		data, found, err := fileIn(rc, file)
		if closeErr := rc.Close(); err == nil && found {
			err = closeErr
		}
		if err != nil {
			t.Fatal(err)
		}
		if found {
			return string(data)
		}
	}
	t.Fatalf("%s has no %s", ref, file)
	return ""
}

func fileIn(r io.Reader, file string) (data []byte, found bool, err error) {
	var buf bytes.Buffer
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return buf.Bytes(), found, nil
		}
		if err != nil {
			return nil, false, err
		}
		if path.Join("/", h.Name) == file {
			found = true
			if _, err := buf.ReadFrom(tr); err != nil {
				return nil, false, err
			}
		}
	}
}
