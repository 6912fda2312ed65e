package layer_test

import (
	"context"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"hako/internal/layer"
	"hako/internal/tree"
)

// file is an entry with its content.
type file struct {
	tree.Entry
	data string
}

// memTree is a tree in memory, by path. It needs no entry for the root.
type memTree map[string]file

func newTree(files ...file) memTree {
	t := memTree{".": {Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}}}
	for _, f := range files {
		t[f.Path] = f
	}
	return t
}

func (t memTree) Lstat(path string) (tree.Entry, error) {
	f, ok := t[path]
	if !ok {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: path, Err: fs.ErrNotExist}
	}
	return f.Entry, nil
}

func (t memTree) ReadDir(path string) ([]string, error) {
	if f, ok := t[path]; !ok || f.Kind != tree.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: fs.ErrNotExist}
	}
	var names []string
	for _, p := range slices.Collect(maps.Keys(t)) {
		if dir, name := split(p); p != "." && dir == path {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func split(p string) (dir, name string) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ".", p
	}
	return p[:i], p[i+1:]
}

func (t memTree) Open(path string) (io.ReadCloser, error) {
	f, ok := t[path]
	if !ok || f.Kind != tree.Regular {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(f.data)), nil
}

// list is a change set in memory.
type list []file

func (l list) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	for _, f := range l {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var content io.Reader
		if f.Kind == tree.Regular {
			content = strings.NewReader(f.data)
		}
		if err := fn(f.Entry, content); err != nil {
			return err
		}
	}
	return nil
}

// collect reads a change set into memory.
func collect(ctx context.Context, c layer.Changes) (list, error) {
	var out list
	err := c.Each(ctx, func(e tree.Entry, content io.Reader) error {
		f := file{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			f.data = string(b)
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

func at(sec int64) time.Time { return time.Unix(sec, 0) }

func dir(path string) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Dir, Mode: 0o755, ModTime: at(1000)}}
}

func reg(path, data string) file {
	return file{
		Entry: tree.Entry{Path: path, Kind: tree.Regular, Mode: 0o644, Size: int64(len(data)), ModTime: at(1000)},
		data:  data,
	}
}

func sym(path, target string) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Symlink, Mode: 0o777, Linkname: target, ModTime: at(1000)}}
}

func hard(path, first string) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Hardlink, Mode: 0o644, Linkname: first, ModTime: at(1000)}}
}

func gone(path string) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Whiteout}}
}

// with returns f changed by fn.
func (f file) with(fn func(*tree.Entry)) file {
	f.Xattrs = maps.Clone(f.Xattrs)
	fn(&f.Entry)
	return f
}

// linked makes f a name of the given inode, which has two names.
func (f file) linked(inode uint64) file {
	return f.with(func(e *tree.Entry) { e.Inode, e.Links = inode, 2 })
}
