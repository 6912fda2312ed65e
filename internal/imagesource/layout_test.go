package imagesource_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/imagesource"
	"hako/internal/workdir"
)

// amd64Image has one layer of random files.
func amd64Image(t *testing.T, platform v1.Platform) v1.Image {
	t.Helper()
	im, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	config, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = platform.OS, platform.Architecture
	if im, err = mutate.ConfigFile(im, config); err != nil {
		t.Fatal(err)
	}
	return im
}

// newLayout is a layout with the image under the tags.
func newLayout(t *testing.T, im v1.Image, tags ...string) string {
	t.Helper()
	dir := t.TempDir()
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		if err := p.AppendImage(im, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: tag})); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolveLayout(t *testing.T) {
	t.Parallel()
	im := amd64Image(t, v1.Platform{OS: "linux", Architecture: "amd64"})
	d, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	one := newLayout(t, im, "only")
	many := newLayout(t, im, "latest", "docker.io/library/x:v1", "v2")
	cwd, base := filepath.Split(one)
	s := newSource(t, imagesource.Options{Cwd: cwd})
	for _, ref := range []string{
		one, one + ":only", one + "@" + d.String(), one + ":wrong@" + d.String(), base, base + ":only",
		many, many + ":v1", many + ":v2", many + ":latest",
	} {
		got, err := s.ResolveLayout(t.Context(), ref, platform("linux/amd64"))
		if err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		if got.Digest.String() != d.String() || got.Name != ref || !strings.HasPrefix(got.Ref, "oci-layout:///") {
			t.Errorf("%s: %+v", ref, got)
		}
		layers, err := s.Layers(t.Context(), got)
		if err != nil || len(layers) != 1 || layers[0].Repository != "" {
			t.Fatalf("%s: %+v, %v", ref, layers, err)
		}
		rc, err := layers[0].Blob(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(rc)
		if err = errors.Join(err, rc.Close()); err != nil || int64(len(b)) != layers[0].Size {
			t.Errorf("%s: %d bytes, %v", ref, len(b), err)
		}
	}
}

func TestLayoutWithPlatformsSideBySide(t *testing.T) {
	t.Parallel()
	dir := newLayout(t, amd64Image(t, v1.Platform{OS: "linux", Architecture: "amd64"}), "x")
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	arm := amd64Image(t, v1.Platform{OS: "linux", Architecture: "arm64"})
	if err := p.AppendImage(arm, layout.WithAnnotations(map[string]string{ocispec.AnnotationRefName: "x"})); err != nil {
		t.Fatal(err)
	}
	s := newSource(t, imagesource.Options{})
	got, err := s.ResolveLayout(t.Context(), dir+":x", platform("linux/arm64"))
	if err != nil || got.Config.Architecture != "arm64" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDamagedLayouts(t *testing.T) {
	t.Parallel()
	im := amd64Image(t, v1.Platform{OS: "linux", Architecture: "amd64"})
	manifest, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := im.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	blob := func(dir string, h v1.Hash) string { return filepath.Join(dir, "blobs", h.Algorithm, h.Hex) }
	for name, tc := range map[string]struct {
		ref    string
		damage func(dir string) error
		want   string
	}{
		"no directory": {damage: os.RemoveAll, want: "index.json: no such file or directory"},
		"no blobs":     {damage: func(d string) error { return os.RemoveAll(d + "/blobs") }, want: "no such file or directory"},
		"bad index":    {damage: func(d string) error { return os.WriteFile(d+"/index.json", []byte("{"), 0o644) }, want: "index.json: unexpected end of JSON input"},
		"no such tag":  {ref: ":lastest", want: "it has no image with the tag lastest"},
		"bad digest":   {ref: "@sha256:1", want: "invalid checksum digest length"},
		"other digest": {ref: "@sha256:" + strings.Repeat("0", 64), want: "no such file or directory"},
		"index is pipe": {damage: func(d string) error {
			return errors.Join(os.Remove(d+"/index.json"), syscall.Mkfifo(d+"/index.json", 0o644))
		}, want: "index.json: it is not a regular file"},
		"wrong manifest": {damage: func(d string) error { return appendTo(blob(d, manifest)) }, want: "its content has the digest"},
		"wrong config":   {damage: func(d string) error { return appendTo(blob(d, config)) }, want: "its content has the digest"},
		"huge config":    {damage: func(d string) error { return os.Truncate(blob(d, config), 17<<20) }, want: "it is larger than 16 MiB"},
		"path in digest": {damage: func(d string) error {
			return rewrite(d+"/index.json", manifest.String(), "sha256:../../../../../etc/passwd")
		}, want: "invalid checksum digest"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newLayout(t, im, "latest")
			if tc.damage != nil {
				if err := tc.damage(dir); err != nil {
					t.Fatal(err)
				}
			}
			_, err := newSource(t, imagesource.Options{}).ResolveLayout(t.Context(), dir+tc.ref, platform("linux/amd64"))
			if !errors.As(err, new(*diag.Error)) || !strings.Contains(diag.Format(err), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestDamagedLayerOfLayout(t *testing.T) {
	t.Parallel()
	im := amd64Image(t, v1.Platform{OS: "linux", Architecture: "amd64"})
	for name, tc := range map[string]struct {
		damage func(path string) error
		want   string
	}{
		"longer":        {appendTo, "bytes, not"},
		"other content": {func(p string) error { return rewriteLast(p) }, "has another digest"},
		"missing":       {os.Remove, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newLayout(t, im, "latest")
			s := newSource(t, imagesource.Options{})
			ref, err := s.ResolveLayout(t.Context(), dir, platform("linux/amd64"))
			if err != nil {
				t.Fatal(err)
			}
			layers, err := s.Layers(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := tc.damage(filepath.Join(dir, "blobs", "sha256", layers[0].Digest.Encoded())); err != nil {
				t.Fatal(err)
			}
			if _, err := layers[0].Open(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func appendTo(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(" ")
	return errors.Join(err, f.Close())
}

func rewriteLast(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o644)
}

func rewrite(path, from, to string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte(from), []byte(to))
	if !json.Valid(b) {
		return errors.New("not JSON any more")
	}
	return os.WriteFile(path, b, 0o644)
}

// newSource is a Source without a registry.
func newSource(t *testing.T, o imagesource.Options) *imagesource.Source {
	t.Helper()
	dir, err := workdir.Open(workdir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Dir = dir
	s := imagesource.New(o)
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}
