package layer_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
)

// written writes l and returns the blob.
func written(t testing.TB, l layer.Changes, opts layer.WriteOptions) ([]byte, *layer.Written) {
	t.Helper()
	var b bytes.Buffer
	w, err := layer.Write(t.Context(), l, &b, opts)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w
}

// withDigest describes a damaged blob as if it were meant to be like that.
func withDigest(d layer.Descriptor, blob []byte) layer.Descriptor {
	d.Digest, d.Size = digest.FromBytes(blob), int64(len(blob))
	return d
}

func TestPrepareRefusesWhatDoesNotMatch(t *testing.T) {
	t.Parallel()
	noise := list{reg("f", string(randomBytes(1, 300_000)))}
	blob, w := written(t, noise, layer.WriteOptions{})
	zblob, zw := written(t, noise, layer.WriteOptions{Compression: layer.Zstd})
	good, other := w.Descriptor, digest.FromString("other")
	flip := func(b []byte, i int) []byte {
		b = slices.Clone(b)
		b[i] ^= 0x55
		return b
	}
	for name, c := range map[string]struct {
		blob []byte
		want layer.Descriptor
		err  string
	}{
		"other digest":    {blob, change(good, func(d *layer.Descriptor) { d.Digest = other }), "blob has digest " + good.Digest.String()},
		"other diffID":    {blob, change(good, func(d *layer.Descriptor) { d.DiffID = other }), "uncompressed content has digest " + good.DiffID.String()},
		"smaller size":    {blob, change(good, func(d *layer.Descriptor) { d.Size-- }), "larger than the"},
		"larger size":     {blob, change(good, func(d *layer.Descriptor) { d.Size++ }), "but the manifest says"},
		"cut off":         {blob[:1000], good, "blob has 1000 bytes, but the manifest says"},
		"empty":           {nil, good, "blob has 0 bytes"},
		"changed":         {flip(blob, 5000), good, "blob has digest"},
		"bad gzip":        {flip(blob, 5000), withDigest(good, flip(blob, 5000)), "read layer sha256:"},
		"bad gzip sum":    {flip(blob, len(blob)-6), withDigest(good, flip(blob, len(blob)-6)), "gzip"},
		"cut off gzip":    {blob[:5000], withDigest(good, blob[:5000]), "unexpected EOF"},
		"garbage after":   {append(slices.Clone(blob), "xyz"...), withDigest(good, append(slices.Clone(blob), "xyz"...)), "read layer"},
		"bad zstd":        {flip(zblob, 5000), withDigest(zw.Descriptor, flip(zblob, 5000)), "read layer"},
		"cut off zstd":    {zblob[:5000], withDigest(zw.Descriptor, zblob[:5000]), "unexpected EOF"},
		"zstd for gzip":   {zblob, change(zw.Descriptor, func(d *layer.Descriptor) { d.MediaType = layer.MediaTypeOCIGzip }), "but the data is zstd"},
		"gzip for zstd":   {blob, change(good, func(d *layer.Descriptor) { d.MediaType = layer.MediaTypeOCIZstd }), "but the data is gzip"},
		"not a layer":     {blob, change(good, func(d *layer.Descriptor) { d.MediaType = "text/html" }), `media type "text/html" is not that of a layer`},
		"digest of md5":   {blob, change(good, func(d *layer.Descriptor) { d.Digest = "md5:x" }), "digest"},
		"no diffID":       {blob, change(good, func(d *layer.Descriptor) { d.DiffID = "" }), "digest"},
		"not a tar":       {[]byte(strings.Repeat("no", 999)), plain([]byte(strings.Repeat("no", 999))), "read tar"},
		"cut off content": {tarOf(t, treg("f", "data"))[:514], plain(tarOf(t, treg("f", "data"))[:514]), "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := layer.Prepare(t.Context(), bytes.NewReader(c.blob), c.want, layer.PrepareOptions{Image: tempFile(t)})
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Fatalf("got %v, want %q", err, c.err)
			}
			if !strings.Contains(err.Error(), string(c.want.Digest)) {
				t.Errorf("%v does not name the digest", err)
			}
		})
	}
}

func change(d layer.Descriptor, fn func(*layer.Descriptor)) layer.Descriptor {
	fn(&d)
	return d
}

func TestPrepareTakesWhatRegistriesHold(t *testing.T) {
	t.Parallel()
	tarball := tarOf(t, tdir("d"), treg("d/f", "data"))
	diffID := digest.FromBytes(tarball)
	zipped := func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		w.Name, w.Comment = "layer.tar", "made by somebody"
		_, _ = w.Write(b)
		_ = w.Close()
		return out.Bytes()
	}
	halves := slices.Concat(zipped(tarball[:100]), zipped(tarball[100:]))
	skippable := slices.Concat([]byte{0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'x', 'y', 'z'}, zstdOf(t, tarball))
	for name, c := range map[string]struct {
		blob      []byte
		mediaType string
	}{
		"gzip with a name":      {zipped(tarball), layer.MediaTypeDockerGzip},
		"gzip in two members":   {halves, layer.MediaTypeOCIGzip},
		"tar sold as gzip":      {tarball, layer.MediaTypeOCIGzip},
		"gzip sold as tar":      {zipped(tarball), layer.MediaTypeOCI},
		"zstd after other data": {skippable, layer.MediaTypeOCIZstd},
		"foreign":               {zipped(tarball), "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"},
		"nondistributable":      {tarball, "application/vnd.oci.image.layer.nondistributable.v1.tar"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := withDigest(layer.Descriptor{MediaType: c.mediaType, DiffID: diffID}, c.blob)
			var kept bytes.Buffer
			// Bytes come in small pieces, and are kept on the way as a build keeps base layers.
			r := io.TeeReader(iotest.OneByteReader(bytes.NewReader(c.blob)), &kept)
			im, err := layer.Prepare(t.Context(), r, want, layer.PrepareOptions{Image: tempFile(t)})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"dir . implied", "dir d 755 0:0", `file d/f 644 0:0 "data"`}, describe(t, im)); d != "" {
				t.Error(d)
			}
			if !bytes.Equal(kept.Bytes(), c.blob) {
				t.Error("not all of the blob was read")
			}
		})
	}
}

func zstdOf(t *testing.T, tarball []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err == nil {
		_, err = w.Write(tarball)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPrepareReportsTheReadersError(t *testing.T) {
	t.Parallel()
	blob, w := written(t, sample(), layer.WriteOptions{})
	errNet := errors.New("connection reset")
	for _, n := range []int{0, 3, 500, len(blob)} {
		r := io.MultiReader(bytes.NewReader(blob[:n]), iotest.ErrReader(errNet))
		if _, err := layer.Prepare(t.Context(), r, w.Descriptor, layer.PrepareOptions{Image: tempFile(t)}); !errors.Is(err, errNet) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

func TestPrepareEndsWithTheContext(t *testing.T) {
	t.Parallel()
	blob, w := written(t, list{reg("f", string(randomBytes(2, 5<<20)))}, layer.WriteOptions{})
	errWhy := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := io.TeeReader(bytes.NewReader(blob), writerFunc(func(p []byte) (int, error) { cancel(errWhy); return len(p), nil }))
	if _, err := layer.Prepare(ctx, r, w.Descriptor, layer.PrepareOptions{Image: tempFile(t)}); !errors.Is(err, errWhy) {
		t.Errorf("got %v", err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestPrepareReportsAFullDisk(t *testing.T) {
	t.Parallel()
	blob, w := written(t, list{reg("f", string(randomBytes(3, 1<<20)))}, layer.WriteOptions{})
	f, err := os.Open(os.DevNull) // not writable
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := layer.Prepare(t.Context(), bytes.NewReader(blob), w.Descriptor, layer.PrepareOptions{Image: f}); err == nil {
		t.Error("no error")
	}
}
