package imagedir

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Fetched is an image to store.
type Fetched struct {
	// Name is the full reference that it was fetched by, and Top the digest that this had.
	Name string
	Top  digest.Digest
	// Manifest is that of one platform; Indexes are what led to it.
	Manifest *Document
	Indexes  []*Document
	Platform ocispec.Platform
	// Blob reads a blob. Only if the last Read returned io.EOF, the content is what it should be. It is called from many goroutines.
	Blob func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error)
}

// Outcome is what became of an image that was to be stored.
type Outcome uint8

// The outcomes.
const (
	// Stored means that it was written.
	Stored Outcome = iota + 1
	// Present means that it was there.
	Present
	// Renewed means that it was there, too old, and whole; from now on it is as good as new.
	Renewed
)

// Store writes an image, unless it is there and force does not say to write it anyway. The directory is made if it is missing.
// Two who store the same image wait for each other, and the second finds it there. Readers see all of an image or none.
func (d *Dir) Store(ctx context.Context, f *Fetched, force bool) (Outcome, error) {
	out, err := d.store(ctx, f, force)
	if err != nil {
		return 0, fmt.Errorf("store %s in %s: %w", f.Name, d.options.Path, err)
	}
	return out, nil
}

func (d *Dir) store(ctx context.Context, f *Fetched, force bool) (Outcome, error) {
	if err := f.Manifest.Digest.Validate(); err != nil {
		return 0, err
	}
	if !force { // without a lock, so that a directory that cannot be written will do
		if im, err := d.find(f.Manifest.Digest); err == nil && !d.Expired(im) {
			return Present, d.note(f)
		}
	}
	if err := os.MkdirAll(d.options.Path, 0o755); err != nil {
		return 0, err
	}
	l, err := d.lock(ctx, f.Manifest.Digest)
	if err != nil {
		return 0, err
	}
	defer l.unlock()
	out := Stored
	if !force {
		if out, err = d.present(ctx, f.Manifest.Digest); err != nil {
			return 0, err
		}
	}
	if out == Stored {
		if err := d.write(ctx, f, l); err != nil {
			return 0, err
		}
	}
	return out, d.note(f)
}

// present says whether an image is there and whole, and renews one that is too old. It is Stored if it has to be.
func (d *Dir) present(ctx context.Context, sum digest.Digest) (Outcome, error) {
	im, err := d.find(sum)
	if err != nil {
		return Stored, nil //nolint:nilerr // it is written anew
	}
	if !d.Expired(im) {
		return Present, nil
	}
	blobs, err := im.descriptors()
	if err != nil {
		return Stored, nil //nolint:nilerr // as above
	}
	for _, b := range blobs {
		r, err := im.Blob(ctx, b)
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if err != nil {
			return Stored, nil //nolint:nilerr // as above
		}
		if err := r.Close(); err != nil {
			return 0, err
		}
	}
	now := d.options.Now()
	return Renewed, os.Chtimes(filepath.Join(d.options.Path, sum.String()), now, now)
}

// write puts the image at a temporary name, and then in its place.
func (d *Dir) write(ctx context.Context, f *Fetched, l *lock) (err error) {
	temp := filepath.Join(d.options.Path, tempPrefix+f.Manifest.Digest.String()+l.suffix)
	if err := os.RemoveAll(temp); err != nil { // of a warmer that was killed
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := os.Mkdir(temp, 0o755); err != nil {
		return err
	}
	made, final := filepath.Join(temp, "image"), filepath.Join(d.options.Path, f.Manifest.Digest.String())
	if !d.options.Archives {
		if err := d.writeLayout(ctx, f, made); err != nil {
			return err
		}
		return replace(made, final)
	}
	if err := writeArchive(ctx, f, made); err != nil {
		return err
	}
	beside := filepath.Join(temp, "manifest")
	if err := os.WriteFile(beside, f.Manifest.Data, 0o644); err != nil { //nolint:gosec // read by other users
		return err
	}
	if err := os.Rename(beside, final+".json"); err != nil { // first: an archive without it is no image
		return err
	}
	return replace(made, final)
}

// replace renames made to final, and leaves in made what was there, if it cannot be replaced in one go.
func replace(made, final string) error {
	err := os.Rename(made, final)
	if err == nil {
		return nil
	}
	if xerr := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); xerr == nil {
		return nil
	}
	// A file system that cannot exchange names: readers may miss it for a moment.
	if os.Rename(final, made+".old") != nil {
		return err
	}
	return os.Rename(made, final)
}

// note records what the image was fetched by. That a directory cannot be written is no reason not to use it.
func (d *Dir) note(f *Fetched) error {
	for _, ix := range f.Indexes {
		if err := d.put(filepath.Join(d.options.Path, indexesDir, ix.Digest.String()), ix.Data); err != nil {
			return err
		}
	}
	if f.Name == "" || strings.Contains(f.Name, "@") {
		return nil
	}
	if old, err := d.Named(f.Name); err == nil && old == f.Top {
		return nil
	}
	data, err := json.Marshal(named{Name: f.Name, Digest: f.Top, Time: d.options.Now().UTC()})
	if err != nil {
		return err
	}
	return d.put(d.namePath(f.Name), data)
}

// put writes a small file, all or nothing, unless it is there as it should be.
func (d *Dir) put(path string, data []byte) error {
	if old, err := readSmall(path); err == nil && string(old) == string(data) {
		return nil
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(filepath.Dir(path), ".new-*")
	}
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Chmod(0o644), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), path)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}
	if errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
		return nil
	}
	return err
}

// writeJobs is how many blobs are fetched at the same time.
const writeJobs = 4

// writeLayout writes an OCI layout with one image.
func (d *Dir) writeLayout(ctx context.Context, f *Fetched, dir string) error {
	blobs, err := blobsOf(f.Manifest)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(writeJobs)
	seen := map[digest.Digest]bool{}
	for _, b := range blobs {
		if seen[b.Digest] || len(b.URLs) > 0 {
			continue
		}
		seen[b.Digest] = true
		g.Go(func() error { return d.writeBlob(gctx, f, b, filepath.Join(dir, blobPath(b.Digest))) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: f.Manifest.MediaType, Digest: f.Manifest.Digest, Size: int64(len(f.Manifest.Data))}
	if f.Platform.OS != "" {
		desc.Platform = &f.Platform
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc},
	})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		ocispec.ImageLayoutFile: []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`),
		"index.json":            index,
		blobPath(desc.Digest):   f.Manifest.Data,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // read by other users
			return err
		}
	}
	return nil
}

// writeBlob fetches a blob, or takes it from another image of the directory.
func (d *Dir) writeBlob(ctx context.Context, f *Fetched, want ocispec.Descriptor, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if d.linkBlob(ctx, want, path) {
		return nil
	}
	r, err := f.Blob(ctx, want)
	if err != nil {
		return err
	}
	defer r.Close()                                                       //nolint:errcheck // nothing was written
	w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // read by other users
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(w, r, make([]byte, copyBuffer))
	return errors.Join(err, w.Close())
}

// linkBlob makes path a name of the same blob of another image, if one has it.
func (d *Dir) linkBlob(ctx context.Context, want ocispec.Descriptor, path string) bool {
	all, err := os.ReadDir(d.options.Path)
	if err != nil {
		return false
	}
	for _, e := range all {
		if !e.IsDir() || digest.Digest(e.Name()).Validate() != nil {
			continue
		}
		other := filepath.Join(d.options.Path, e.Name())
		im := &Image{blobs: layoutBlobs{other}}
		r, err := im.Blob(ctx, want)
		if err != nil {
			continue
		}
		if r.Close() == nil && os.Link(filepath.Join(other, blobPath(want.Digest)), path) == nil {
			return true
		}
	}
	return false
}

// writeArchive writes a docker archive with one image.
func writeArchive(ctx context.Context, f *Fetched, path string) (err error) {
	blobs, err := blobsOf(f.Manifest)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // read by other users
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobs[0].Digest.String(), RepoTags: []string{f.Name}, Layers: []string{}}
	if strings.Contains(f.Name, "@") {
		entry.RepoTags = nil
	}
	seen := map[string]bool{}
	for i, b := range blobs {
		name := entry.Config
		if i > 0 {
			name = b.Digest.Encoded() + ".tar.gz"
			entry.Layers = append(entry.Layers, name)
		}
		if seen[name] || len(b.URLs) > 0 {
			continue
		}
		seen[name] = true
		if err := archiveBlob(ctx, f, b, name, w); err != nil {
			return err
		}
	}
	data, err := json.Marshal([]any{entry})
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: "manifest.json", Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		return err
	}
	return w.Close()
}

func archiveBlob(ctx context.Context, f *Fetched, b ocispec.Descriptor, name string, w *tar.Writer) error {
	r, err := f.Blob(ctx, b)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // nothing was written
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: b.Size, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.CopyBuffer(w, r, make([]byte, copyBuffer))
	return err
}
