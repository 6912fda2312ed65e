package archive_test

import (
	"archive/tar"
	"fmt"
	"io"
	"runtime"
	"testing"

	"hako/internal/archive"
)

// manyFiles streams an archive of so many small files, 50 in a directory.
func manyFiles(count int) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		tw := tar.NewWriter(w)
		var err error
		for i := 0; i < count && err == nil; i++ {
			h := tar.Header{Name: fmt.Sprintf("node_modules/package-%d/lib/file-%d.js", i/50, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: 10}
			if err = tw.WriteHeader(&h); err == nil {
				_, err = fmt.Fprintf(tw, "%010d", i)
			}
		}
		if err == nil {
			err = tw.Close()
		}
		w.CloseWithError(err)
	}()
	return r
}

// heap is what is in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // far below
}

// TestMemory is not parallel: it measures the heap.
func TestMemory(t *testing.T) {
	const count = 100_000
	before := heap()
	tr, err := archive.Unpack(t.Context(), manyFiles(count), options(t))
	if err != nil {
		t.Fatal(err)
	}
	if each := (heap() - before) / count; each > 150 {
		t.Errorf("%d bytes for each file", each)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkMillionFiles(b *testing.B) {
	for b.Loop() {
		before := heap()
		tr, err := archive.Unpack(b.Context(), manyFiles(1_000_000), options(b))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(heap()-before)/1e6, "bytes/file")
		if err := tr.Close(); err != nil {
			b.Error(err)
		}
	}
}
