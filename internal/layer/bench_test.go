package layer_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"hako/internal/layer"
	"hako/internal/tree"
)

// benchSize is how many bytes the benchmarks move: HAKO_BENCH_MIB=1024 go test -bench . ./internal/layer
func benchSize() int64 {
	if n, err := strconv.Atoi(os.Getenv("HAKO_BENCH_MIB")); err == nil && n > 0 {
		return int64(n) << 20
	}
	return 64 << 20
}

// benchLayer is a layer with files of many sizes, like a distribution's: four fifths of it text and programs,
// the rest data that does not compress.
type benchLayer struct {
	total       int64
	text, noise []byte
}

func newBenchLayer() benchLayer {
	return benchLayer{total: benchSize(), text: mixed(1, 16<<20), noise: randomBytes(1, 4<<20)}
}

func (b benchLayer) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	left := b.total
	for d := 0; left > 0; d++ {
		name := fmt.Sprintf("dir%06d", d)
		if err := fn(dir(name).Entry, nil); err != nil {
			return err
		}
		for i := range 20 {
			f := reg(fmt.Sprintf("%s/file%02d", name, i), "")
			f.Size = min(left, int64(1)<<(8+(d+i*7)%15)) // 256 B to 4 MiB
			src := &cycle{content: b.text, pos: (d*131071 + i*8191) % len(b.text)}
			if i%5 == 4 {
				src = &cycle{content: b.noise, pos: (d*131071 + i*8191) % len(b.noise)}
			}
			if err := fn(f.Entry, src); err != nil {
				return err
			}
			if left -= f.Size; left <= 0 {
				break
			}
		}
	}
	return nil
}

func BenchmarkWrite(b *testing.B) {
	l := newBenchLayer()
	for _, opts := range []layer.WriteOptions{
		{Level: 1}, {Level: 3}, {}, {Level: 5}, {Level: 6}, {Compression: layer.Zstd, Level: 1}, {Compression: layer.Zstd}, {Compression: layer.Uncompressed},
	} {
		for _, image := range []bool{false, true} {
			name := fmt.Sprintf("%s-%d/image=%v", opts.Compression, opts.Level, image)
			b.Run(name, func(b *testing.B) {
				if image {
					opts.Image = tempFile(b)
				}
				b.SetBytes(l.total)
				b.ReportAllocs()
				var size int64
				for b.Loop() {
					w, err := layer.Write(b.Context(), l, io.Discard, opts)
					if err != nil {
						b.Fatal(err)
					}
					size = w.Size
				}
				b.ReportMetric(100*float64(size)/float64(l.total), "%size")
			})
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	l := newBenchLayer()
	for _, opts := range []layer.WriteOptions{{}, {Compression: layer.Zstd}, {Compression: layer.Uncompressed}} {
		b.Run(opts.Compression.String(), func(b *testing.B) {
			blob := tempFile(b)
			w, err := layer.Write(b.Context(), l, blob, opts)
			if err != nil {
				b.Fatal(err)
			}
			image := tempFile(b)
			b.SetBytes(l.total)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := layer.Prepare(b.Context(), io.NewSectionReader(blob, 0, w.Size), w.Descriptor, layer.PrepareOptions{Image: image}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSmallLayer is what every RUN costs at least.
func BenchmarkSmallLayer(b *testing.B) {
	l := list{dir("etc"), reg("etc/hostname", "x")}
	b.ReportAllocs()
	image := tempFile(b)
	for b.Loop() {
		if _, err := layer.Write(b.Context(), l, io.Discard, layer.WriteOptions{Image: image}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkManyFiles is a layer of 30,000 small files.
func BenchmarkManyFiles(b *testing.B) {
	var l list
	for d := range 300 {
		l = append(l, dir(fmt.Sprintf("dir%04d", d)))
		for f := range 100 {
			l = append(l, reg(fmt.Sprintf("dir%04d/file%03d", d, f), strings.Repeat("small file ", f)))
		}
	}
	b.ReportAllocs()
	image := tempFile(b)
	for b.Loop() {
		if _, err := layer.Write(b.Context(), l, io.Discard, layer.WriteOptions{Image: image}); err != nil {
			b.Fatal(err)
		}
	}
}
