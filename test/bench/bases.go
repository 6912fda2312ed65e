package main

import (
	"archive/tar"
	"bufio"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"hako/test/lab"
)

// The bases of the rows, as repositories of the registry.
const (
	busyboxBase = "/library/busybox:1"
	debianBase  = "/library/debian:bookworm"
	wideBase    = "/library/wide:1"
	golangBase  = "/library/golang:1"
)

const (
	wideLayers = 5
	wideFiles  = 70_000
	wideBytes  = 654 << 20 // of content, in all layers together
	baseTime   = 1_600_000_000
)

// pushBase makes and pushes a base unless an earlier row has done so.
func (b *bench) pushBase(ctx context.Context, base string) error {
	if b.pushed[base] {
		return nil
	}
	push := map[string]func(context.Context, string) error{
		busyboxBase: lab.PushBusybox, debianBase: lab.PushDebian, wideBase: b.pushWide, golangBase: b.pushGolang,
	}[base]
	if err := push(ctx, b.registry.Addr+base); err != nil {
		return err
	}
	b.pushed[base] = true
	return nil
}

// pushWide pushes busybox below four layers of many files: as large as images of languages and their libraries are.
func (b *bench) pushWide(ctx context.Context, ref string) error {
	layers := make([]string, wideLayers)
	for i := range layers {
		layers[i] = filepath.Join(b.dir, fmt.Sprintf("wide%d.tar", i))
		defer os.Remove(layers[i]) //nolint:errcheck // goes with the directory at the latest
		err := writeTar(layers[i], func(w *bufio.Writer) error {
			if i == 0 {
				return lab.BusyboxTar(ctx, w)
			}
			return writeWideLayer(w, i)
		})
		if err != nil {
			return err
		}
	}
	return lab.Push(ctx, ref, openers(layers)...)
}

// writeWideLayer writes one layer of files below /opt/NUMBER: prose, and bytes that do not shrink, as programs have.
func writeWideLayer(w io.Writer, number int) error {
	rng := rand.New(rand.NewPCG(uint64(number), 7)) //nolint:gosec // small
	text, noise := words(rng, 16<<20), make([]byte, 16<<20)
	random := rand.NewChaCha8([32]byte{byte(number)})
	_, _ = random.Read(noise) // never fails
	tw := tar.NewWriter(w)
	const files = wideFiles / (wideLayers - 1)
	const mean = wideBytes / wideFiles
	for i := range files {
		dir := fmt.Sprintf("opt/%d/d%02d/e%02d", number, i/1000, i/50%20)
		if i%50 == 0 {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: time.Unix(baseTime, 0)}); err != nil {
				return err
			}
		}
		size := min(int(mean*rng.ExpFloat64()), 8<<20)
		from := text
		if i%3 == 0 {
			from = noise
		}
		at := rng.IntN(len(from) - size)
		h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s/f%05d", dir, i), Size: int64(size), Mode: 0o644, ModTime: time.Unix(baseTime, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(from[at : at+size]); err != nil {
			return err
		}
	}
	return tw.Close()
}

// pushGolang pushes Debian below the Go tool chain that runs this program.
func (b *bench) pushGolang(ctx context.Context, ref string) error {
	root, err := firstLine(ctx, "go", "env", "GOROOT")
	if err != nil {
		return fmt.Errorf("find the Go tool chain: %w", err)
	}
	debian, err := lab.DebianTar(ctx)
	if err != nil {
		return err
	}
	toolchain := filepath.Join(b.dir, "golang.tar")
	defer os.Remove(toolchain) //nolint:errcheck // goes with the directory at the latest
	if err := writeTar(toolchain, func(w *bufio.Writer) error { return writeToolchain(w, root) }); err != nil {
		return err
	}
	return lab.Push(ctx, ref, openers([]string{debian, toolchain})...)
}

// writeToolchain writes what is needed of a GOROOT to compile, as usr/local/go.
func writeToolchain(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	keep := []string{"bin", "go.env", "src", "VERSION", "pkg/include", "pkg/tool/" + runtime.GOOS + "_" + runtime.GOARCH, "lib/time"}
	for _, k := range keep {
		err := filepath.WalkDir(filepath.Join(root, k), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() == "testdata" {
				return skipped(d, err)
			}
			return addFile(tw, p, "usr/local/go"+strings.TrimPrefix(p, root))
		})
		if err != nil {
			return fmt.Errorf("pack the Go tool chain: %w", err)
		}
	}
	return tw.Close()
}

func skipped(d fs.DirEntry, err error) error {
	if err == nil && d.IsDir() {
		return fs.SkipDir
	}
	return err
}

// addFile adds a directory or regular file to a tar, with root as its owner.
func addFile(tw *tar.Writer, file, name string) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(baseTime, 0)}
	if !st.IsDir() {
		h.Typeflag, h.Name, h.Mode, h.Size = tar.TypeReg, name, int64(st.Mode().Perm()), st.Size()
	}
	if err := tw.WriteHeader(h); err != nil || st.IsDir() {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	_ = f.Close() // only read
	return err
}

// writeTar makes a file of what write writes.
func writeTar(file string, write func(*bufio.Writer) error) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("make a base: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", filepath.Base(file), err)
	}
	return nil
}

func openers(files []string) []func() (io.ReadCloser, error) {
	var out []func() (io.ReadCloser, error)
	for _, f := range files {
		out = append(out, func() (io.ReadCloser, error) { return os.Open(f) })
	}
	return out
}
