package solve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"hako/internal/filecopy"
	"hako/internal/plan"
	"hako/internal/trail"
	"hako/internal/tree"
)

// framed hashes strings so that different lists of strings never give the same bytes.
type framed struct{ hash.Hash }

func newFramed(purpose string) framed {
	f := framed{sha256.New()}
	f.add(purpose)
	return f
}

func (f framed) add(parts ...string) {
	for _, p := range parts {
		fmt.Fprintf(f, "%d:%s", len(p), p)
	}
}

func (f framed) hex() string { return hex.EncodeToString(f.Sum(nil)) }

// contents knows the digests of files of a tree; each is read at most once.
type contents struct {
	tree.Tree
	// sparse says that it is the build context, see [filecopy.Request].
	sparse bool

	mu    sync.Mutex // guards known
	known map[string]digest.Digest
}

// digested is a tree that knows the digests of its files without reading them.
type digested interface {
	ContentDigest(path string) (digest.Digest, bool)
}

func (c *contents) digest(path string) (digest.Digest, error) {
	if d, ok := c.Tree.(digested); ok {
		if id, ok := d.ContentDigest(path); ok {
			return id, nil
		}
	}
	c.mu.Lock()
	id, ok := c.known[path]
	c.mu.Unlock()
	if ok {
		return id, nil
	}
	rc, err := c.Tree.Open(path)
	if err != nil {
		return "", err
	}
	id, err = digest.SHA256.FromReader(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		return "", err
	}
	c.mu.Lock()
	c.known[path] = id
	c.mu.Unlock()
	return id, nil
}

// stand is the tree with every file's content replaced by its digest: what copies of it say is as different as the files are.
type stand struct {
	*contents
	sizeBytes *atomic.Int64 // of the files that were opened
}

func (s stand) Lstat(path string) (tree.Entry, error) {
	e, err := s.Tree.Lstat(path)
	if err == nil && e.Kind == tree.Regular {
		id, err := s.digest(path)
		e.Size = int64(len(id))
		return e, err
	}
	return e, err
}

func (s stand) Open(path string) (io.ReadCloser, error) {
	e, err := s.Tree.Lstat(path)
	if err != nil {
		return nil, err
	}
	id, err := s.digest(path)
	if err != nil {
		return nil, err
	}
	s.sizeBytes.Add(e.Size)
	return io.NopCloser(strings.NewReader(id.String())), nil
}

// copied identifies what a COPY takes of from: paths, types, modes, owners, contents, links, attributes, but no times.
// What it is copied to and what it becomes there is in the operation and in the stage.
// files gets a note of each; it may be nil.
func copied(ctx context.Context, op *plan.Copy, from *contents, files *trail.Files) (id string, sizeBytes int64, err error) {
	var size atomic.Int64
	changes, err := filecopy.Copy(ctx, &filecopy.Request{
		From: stand{from, &size}, Sparse: from.sparse, Paths: op.Paths, Parents: parents(op.Parents), Exclude: op.Exclude, Dest: op.Dest, Add: op.Add,
	})
	if err != nil {
		return "", 0, err
	}
	f := newFramed("copied 1")
	err = changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		f.entry(&e)
		if content == nil {
			files.Add(&e, "")
			return nil
		}
		text, err := io.ReadAll(content)
		f.add(string(text))
		files.Add(&e, string(text))
		return err
	})
	return f.hex(), size.Load(), errors.Join(err, changes.Close())
}

// below identifies everything at and below a path of a tree, as copied does.
func below(ctx context.Context, from *contents, at string, files *trail.Files) (_ string, sizeBytes int64, _ error) {
	f := newFramed("mounted 1")
	var walk func(p string) error
	walk = func(p string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e, err := from.Tree.Lstat(p)
		if err != nil {
			return err
		}
		e.Path = strings.TrimPrefix(strings.TrimPrefix(p, at), "/")
		f.entry(&e)
		switch e.Kind {
		case tree.Regular:
			id, err := from.digest(p)
			f.add(id.String())
			files.Add(&e, id.String())
			sizeBytes += e.Size
			return err
		case tree.Dir:
			files.Add(&e, "")
			names, err := from.Tree.ReadDir(p)
			if err != nil {
				return err
			}
			for _, n := range names {
				if err := walk(path.Join(p, n)); err != nil {
					return err
				}
			}
		default:
			files.Add(&e, "")
		}
		return nil
	}
	err := walk(at)
	return f.hex(), sizeBytes, err
}

func (f framed) entry(e *tree.Entry) {
	f.add(e.Path, fmt.Sprint(e.Kind, e.Mode, e.UID, e.GID, e.Major, e.Minor, e.Opaque), e.Linkname, fmt.Sprint(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		f.add(name, e.Xattrs[name])
	}
}
