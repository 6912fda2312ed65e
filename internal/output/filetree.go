package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/directory"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
)

// writeFiles writes the file trees of the images to a directory.
func (o *Output) writeFiles(ctx context.Context, e export, r *Result) error {
	files, err := filesOf(ctx, e, r)
	if err != nil {
		return err
	}
	report, err := directory.Write(ctx, e.Dest, files)
	if err != nil {
		return err
	}
	if report.Attributes > 0 {
		o.events.Emit(event.Warning{Message: fmt.Sprintf("%d extended attributes could not be set in %s", report.Attributes, e.Dest)})
	}
	return nil
}

// writeFilesTar writes the file trees of the images as a tar.
func writeFilesTar(ctx context.Context, w io.Writer, e export, r *Result) error {
	files, err := filesOf(ctx, e, r)
	if err != nil {
		return err
	}
	_, err = layer.Write(ctx, files, w, layer.WriteOptions{Compression: layer.Uncompressed})
	return err
}

// filesOf are the files of all platforms, as changes to nothing. As in BuildKit, each platform of an index has a directory
// of its own, unless the user says otherwise; then no two platforms may have the same file.
func filesOf(ctx context.Context, e export, r *Result) (layer.Changes, error) {
	several := r.HasIndex() && (len(r.Images) > 1 || len(r.Extra) == 0) // an index that is there for attestations is none to users
	all := &platformFiles{split: e.Split == SplitAlways || e.Split == SplitSeveral && several}
	for _, im := range r.Images {
		t, err := im.Files(ctx)
		if err != nil {
			return nil, err
		}
		if t, err = below(t, e.Source); err != nil {
			return nil, err
		}
		if t, err = im.documented(ctx, t, several && !all.split); err != nil {
			return nil, err
		}
		root, err := t.Lstat(".")
		if err != nil {
			return nil, err
		}
		all.platforms = append(all.platforms, platformTree{
			name: platformDir(im.Manifest.Platform), time: root.ModTime, changes: layer.Diff(t, rootfs.NewTree()),
		})
	}
	slices.SortFunc(all.platforms, func(a, b platformTree) int { return tree.Compare(a.name, b.name) })
	if r.Time != nil {
		return &timed{all, *r.Time}, nil
	}
	return all, nil
}

// timed are files that all have one time.
type timed struct {
	layer.Changes
	time time.Time
}

// Each implements [layer.Changes].
func (t *timed) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	return t.Changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		e.ModTime = t.time
		return fn(e, content)
	})
}

// platformDir is "linux_arm64".
func platformDir(p *ocispec.Platform) string {
	if p == nil {
		p = &ocispec.Platform{}
	}
	return strings.NewReplacer("/", "_", ":", "_").Replace(image.FormatPlatform(*p))
}

// platformFiles are the files of several platforms, each in its directory if they are split.
type platformFiles struct {
	split     bool
	platforms []platformTree
}

// platformTree is the tree of one platform.
type platformTree struct {
	name    string // of its directory
	time    time.Time
	changes layer.Changes
}

var _ layer.Changes = (*platformFiles)(nil)

// Each implements [layer.Changes].
func (f *platformFiles) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	if !f.split {
		return f.together(ctx, fn)
	}
	for _, p := range f.platforms {
		if err := fn(tree.Entry{Path: p.name, Kind: tree.Dir, Mode: 0o755, ModTime: p.time}, nil); err != nil {
			return err
		}
		err := p.changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
			e.Path = path.Join(p.name, e.Path)
			if e.Kind == tree.Hardlink {
				e.Linkname = path.Join(p.name, e.Linkname)
			}
			return fn(e, content)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// together gives the files of all platforms in one directory.
func (f *platformFiles) together(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	if len(f.platforms) == 1 {
		return f.platforms[0].changes.Each(ctx, fn)
	}
	from := map[string]string{}
	for _, p := range f.platforms {
		err := p.changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
			if other, ok := from[e.Path]; ok && e.Kind != tree.Dir {
				return &diag.Error{
					What: fmt.Sprintf("%s and %s both have the file %s", other, p.name, e.Path),
					Hint: "Leave out platform-split=false: then each platform has a directory of its own.",
				}
			}
			if e.Kind != tree.Dir {
				from[e.Path] = p.name
			}
			return fn(e, content)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// below is the directory of t at source, or t if source is empty.
func below(t tree.Tree, source string) (tree.Tree, error) {
	if source == "" {
		return t, nil
	}
	at, err := tree.Resolve(t, source, true)
	if err != nil {
		return nil, err
	}
	e, err := t.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || err == nil && e.Kind != tree.Dir {
		return nil, &diag.Error{What: fmt.Sprintf("src=%s is no directory of the image", source), Hint: "Leave it out to write all files."}
	}
	if err != nil || at == "." {
		return t, err
	}
	return &subtree{t, at}, nil
}

// subtree is the directory of a tree at a path, as a tree.
type subtree struct {
	tree.Tree
	dir string
}

// Lstat describes the entry at path.
func (s *subtree) Lstat(p string) (tree.Entry, error) {
	e, err := s.Tree.Lstat(path.Join(s.dir, p))
	e.Path = p
	return e, err
}

// ReadDir returns the names in the directory at path.
func (s *subtree) ReadDir(p string) ([]string, error) { return s.Tree.ReadDir(path.Join(s.dir, p)) }

// Open reads the regular file at path.
func (s *subtree) Open(p string) (io.ReadCloser, error) { return s.Tree.Open(path.Join(s.dir, p)) }
