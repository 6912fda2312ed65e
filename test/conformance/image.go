package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// Library is the registry that the images of cases are pushed to. It may be used from one goroutine at a time.
type Library struct {
	host  string
	shell ShellFunc
	done  map[string]libraryImage
}

// ShellFunc appends the shell, with its applets, to a layer.
type ShellFunc func() ([]ShellFile, error)

// ShellFile is one file of the shell: content, or the target of a symbolic link.
type ShellFile struct {
	Path, Target string
	Content      []byte
}

// libraryImage remembers an image that was pushed.
type libraryImage struct {
	source ImageSource
	images []v1.Image
}

// NewLibrary returns the library at host, "127.0.0.1:port", which speaks plain HTTP.
func NewLibrary(host string, shell ShellFunc) *Library {
	return &Library{host: host, shell: shell, done: map[string]libraryImage{}}
}

// Push makes the images of c available under docker.io/library, and returns them by name;
// an image for several platforms is several images.
func (lib *Library) Push(c *Case) (map[string][]v1.Image, error) {
	result := map[string][]v1.Image{}
	for name, src := range c.Images {
		images, err := lib.image(c, name)
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", name, err)
		}
		if lib.done[name].source != src {
			return nil, fmt.Errorf("make image %s: two cases describe it differently", name)
		}
		result[name] = images
	}
	return result, nil
}

func (lib *Library) image(c *Case, repo string) ([]v1.Image, error) {
	if d, ok := lib.done[repo]; ok {
		return d.images, nil
	}
	src, ok := c.Images[repo]
	if !ok {
		return nil, fmt.Errorf("image %s is not described", repo)
	}
	lines, err := parseLines(string(src))
	if err != nil {
		return nil, err
	}
	var images []v1.Image
	for _, part := range splitPlatforms(lines) {
		b := imageBuilder{lib: lib, c: c, name: repo, image: empty.Image}
		im, err := b.build(part)
		if err != nil {
			return nil, err
		}
		images = append(images, im)
	}
	if err := lib.push(repo, images); err != nil {
		return nil, err
	}
	lib.done[repo] = libraryImage{src, images}
	return images, nil
}

// splitPlatforms cuts the description at each line "platform".
func splitPlatforms(lines []line) [][]line {
	var parts [][]line
	for i, l := range lines {
		if i == 0 || l.words[0] == "platform" {
			parts = append(parts, nil)
		}
		parts[len(parts)-1] = append(parts[len(parts)-1], l)
	}
	return parts
}

func (lib *Library) push(repo string, images []v1.Image) error {
	ref, err := name.ParseReference(lib.host+"/library/"+repo, name.Insecure)
	if err != nil {
		return err
	}
	if len(images) == 1 {
		return remote.Write(ref, images[0], remote.WithTransport(http.DefaultTransport))
	}
	index, err := indexOf(images)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, index, remote.WithTransport(http.DefaultTransport))
}

// indexOf is an index of images for several platforms.
func indexOf(images []v1.Image) (v1.ImageIndex, error) {
	var adds []mutate.IndexAddendum
	for _, im := range images {
		cf, err := im.ConfigFile()
		if err != nil {
			return nil, err
		}
		adds = append(adds, mutate.IndexAddendum{Add: im, Descriptor: v1.Descriptor{Platform: cf.Platform()}})
	}
	return mutate.AppendManifests(empty.Index, adds...), nil
}

// imageBuilder interprets the description of one image: lines "from IMAGE", "platform OS/ARCH", "config JSON",
// "docker" (Docker's media types), "layer [zst]" and entries, and "shell", which stands for the files of the shell.
type imageBuilder struct {
	lib    *Library
	c      *Case
	name   string
	image  v1.Image
	format string
	layer  []line
	shell  bool
	config v1.Config
	plat   v1.Platform
	media  types.MediaType
	open   bool
}

func (b *imageBuilder) build(lines []line) (v1.Image, error) {
	b.plat = v1.Platform{OS: "linux", Architecture: "amd64"}
	b.media = types.OCIManifestSchema1
	for _, l := range lines {
		if err := b.add(l); err != nil {
			return nil, fmt.Errorf("line %d: %w", l.number, err)
		}
	}
	if err := b.flush(); err != nil {
		return nil, err
	}
	cf, err := b.image.ConfigFile()
	if err != nil {
		return nil, err
	}
	cf = cf.DeepCopy()
	cf.Config = b.config
	cf.OS, cf.Architecture, cf.Variant = b.plat.OS, b.plat.Architecture, b.plat.Variant
	cf.Created = v1.Time{Time: fixedTime()}
	im, err := mutate.ConfigFile(b.image, cf)
	if err != nil {
		return nil, err
	}
	if b.media == types.DockerManifestSchema2 {
		return mutate.ConfigMediaType(mutate.MediaType(im, b.media), types.DockerConfigJSON), nil
	}
	return mutate.ConfigMediaType(mutate.MediaType(im, b.media), types.OCIConfigJSON), nil
}

func (b *imageBuilder) add(l line) error {
	switch w := l.words; w[0] {
	case "from":
		base, err := b.lib.image(b.c, w[1])
		if err != nil {
			return err
		}
		cf, err := base[0].ConfigFile()
		if err != nil {
			return err
		}
		b.image, b.config = base[0], cf.DeepCopy().Config
		return nil
	case "platform":
		p, err := v1.ParsePlatform(w[1])
		if err != nil {
			return fmt.Errorf("parse platform: %w", err)
		}
		b.plat = *p
		return nil
	case "docker":
		b.media = types.DockerManifestSchema2
		return nil
	case "config":
		if err := json.Unmarshal([]byte(strings.Join(w[1:], " ")), &b.config); err != nil {
			return fmt.Errorf("parse config: %w", err)
		}
		return nil
	case "layer":
		err := b.flush()
		b.open, b.format = true, strings.Join(w[1:], "")
		return err
	case "shell":
		b.shell = true
		return nil
	default:
		b.layer = append(b.layer, l)
		return nil
	}
}

// flush adds the layer that was described so far.
func (b *imageBuilder) flush() error {
	if !b.open {
		return nil
	}
	var buf bytes.Buffer
	if err := b.writeLayer(&buf); err != nil {
		return err
	}
	add := mutate.Addendum{History: v1.History{
		CreatedBy: fmt.Sprintf("layer of %s", b.name), Created: v1.Time{Time: fixedTime()},
	}}
	var err error
	if add.Layer, err = newLayer(buf.Bytes(), b.format, b.media); err != nil {
		return err
	}
	b.layer, b.shell, b.open = nil, false, false
	b.image, err = mutate.Append(b.image, add)
	return err
}

func (b *imageBuilder) writeLayer(w io.Writer) error {
	lines := b.layer
	if b.shell {
		files, err := b.lib.shell()
		if err != nil {
			return fmt.Errorf("make shell: %w", err)
		}
		for _, f := range files {
			words := []string{"symlink", f.Path, f.Target}
			if f.Content != nil {
				words = []string{"file", f.Path, "0755", "0:0", string(f.Content)}
			}
			lines = append(lines, line{words: words})
		}
	}
	return writeEntries(w, lines)
}

func newLayer(data []byte, format string, media types.MediaType) (v1.Layer, error) {
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	if format == "zst" {
		enc, err := zstd.NewWriter(nil)
		if err != nil {
			return nil, fmt.Errorf("open zstd: %w", err)
		}
		packed := enc.EncodeAll(data, nil)
		open = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(packed)), nil }
		return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayerZStd))
	}
	mt := types.OCILayer
	if media == types.DockerManifestSchema2 {
		mt = types.DockerLayer
	}
	return tarball.LayerFromOpener(open, tarball.WithMediaType(mt))
}

// layout writes the images of that names to the OCI layout at the path, each with its name as tag: "layout @dir IMAGE…".
func (s *setup) layout(path string, names []string) error {
	p, err := layout.Write(s.path(path), empty.Index)
	if err != nil {
		return err
	}
	for _, name := range names {
		images := s.images[name]
		if len(images) == 0 {
			return fmt.Errorf("layout: there is no image %s", name)
		}
		tag := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})
		if len(images) == 1 {
			err = p.AppendImage(images[0], tag)
		} else {
			var index v1.ImageIndex
			if index, err = indexOf(images); err == nil {
				err = p.AppendIndex(index, tag)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
