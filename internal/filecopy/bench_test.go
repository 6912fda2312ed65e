package filecopy_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"hako/internal/buildcontext"
	"hako/internal/filecopy"
	"hako/internal/tree"
)

// BenchmarkCopyContext copies 30,000 files of 1 KiB from a directory.
func BenchmarkCopyContext(b *testing.B) {
	dir := b.TempDir()
	content := make([]byte, 1024)
	for i := range 30_000 {
		p := filepath.Join(dir, fmt.Sprintf("d%03d/e%d/f%05d", i/100, i/10%10, i))
		if i%10 == 0 {
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil { //nolint:gosec // a test
				b.Fatal(err)
			}
		}
		if err := os.WriteFile(p, content, 0o600); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), nil, 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		ctx, err := buildcontext.Open(b.Context(), buildcontext.Options{Source: dir, Cwd: "/"})
		if err != nil {
			b.Fatal(err)
		}
		c, err := filecopy.Copy(b.Context(), &filecopy.Request{From: ctx.Tree(), Paths: []string{"."}, Dest: "/app/", Now: now()})
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		err = c.Each(b.Context(), func(_ tree.Entry, content io.Reader) error {
			if content == nil {
				return nil
			}
			_, err := io.CopyBuffer(io.Discard, content, buf)
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
		if err := ctx.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
