package layer_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"hako/internal/layer"
)

func TestRecompress(t *testing.T) {
	t.Parallel()
	kinds := []layer.Compression{layer.Gzip, layer.Zstd, layer.Uncompressed}
	changes := list{reg("a", strings.Repeat("text ", 1<<16)), reg("b", "b")}
	for _, from := range kinds {
		var blob bytes.Buffer
		old, err := layer.Write(t.Context(), changes, &blob, layer.WriteOptions{Compression: from})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range kinds {
			opts := layer.WriteOptions{Compression: to, Docker: to == layer.Gzip}
			var want, got bytes.Buffer
			direct, err := layer.Write(t.Context(), changes, &want, opts)
			if err != nil {
				t.Fatal(err)
			}
			desc, err := layer.Recompress(t.Context(), bytes.NewReader(blob.Bytes()), old.Descriptor, &got, opts)
			if err != nil || desc != direct.Descriptor || !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%s to %s: %+v, %v; want %+v", from, to, desc, err, direct.Descriptor)
			}
		}
	}
}

func TestRecompressVerifies(t *testing.T) {
	t.Parallel()
	var blob bytes.Buffer
	w, err := layer.Write(t.Context(), list{reg("a", strings.Repeat("x", 1000))}, &blob, layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(blob.Bytes())
	damaged[len(damaged)/2]++
	other := w.Descriptor
	other.DiffID = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	odd := w.Descriptor
	odd.MediaType = "text/plain"
	stopped := errors.New("stopped")
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	for name, tt := range map[string]struct {
		ctx  context.Context
		data []byte
		desc layer.Descriptor
		opts layer.WriteOptions
		want string
	}{
		"damaged":       {t.Context(), damaged, w.Descriptor, layer.WriteOptions{}, "blob has digest"},
		"short":         {t.Context(), blob.Bytes()[:20], w.Descriptor, layer.WriteOptions{}, "blob has 20 bytes"},
		"more":          {t.Context(), append(bytes.Clone(blob.Bytes()), 0), w.Descriptor, layer.WriteOptions{}, "larger than"},
		"other diffID":  {t.Context(), blob.Bytes(), other, layer.WriteOptions{}, "its tar has the digest"},
		"no layer":      {t.Context(), blob.Bytes(), odd, layer.WriteOptions{}, "is not that of a layer"},
		"level":         {t.Context(), blob.Bytes(), w.Descriptor, layer.WriteOptions{Level: 10}, "level 10"},
		"ended context": {ended, blob.Bytes(), w.Descriptor, layer.WriteOptions{}, "stopped"},
	} {
		var out bytes.Buffer
		_, err := layer.Recompress(tt.ctx, bytes.NewReader(tt.data), tt.desc, &out, tt.opts)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}
