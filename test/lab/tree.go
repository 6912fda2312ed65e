package lab

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// Tree is what a container sees when an image runs, by absolute path.
type Tree map[string]Node

// Node is one file of a tree.
type Node struct {
	// Kind is file, dir, symlink, char, block or fifo.
	Kind string
	// Mode has the twelve permission bits.
	Mode int64
	UID  int
	GID  int
	// Target is where a symbolic link points.
	Target string
	// Device is "major:minor" of a device node.
	Device string
	// Xattrs are the extended attributes.
	Xattrs map[string]string
	// Content is the SHA-256 of a file's bytes; Size is their number.
	Content string
	Size    int64
	// First is the first path, in order, of the same hard-linked file; empty if there is only one.
	First string
}

// Image reads the image ref over plain HTTP, with a registry's credentials if it has any.
func (r *Registry) Image(ctx context.Context, ref string) (v1.Image, error) {
	src, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return nil, fmt.Errorf("read an image: %w", err)
	}
	auth := authn.Anonymous
	if r.User != "" {
		auth = &authn.Basic{Username: r.User, Password: r.Password}
	}
	img, err := remote.Image(src, remote.WithContext(ctx), remote.WithAuth(auth))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", ref, err)
	}
	return img, nil
}

// Flatten stacks img's layers as the OCI image specification says: whiteouts and opaque directories hide
// what lower layers have, everything else replaces it.
func Flatten(img v1.Image) (Tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	f := &flattener{nodes: map[string]*Node{"/": {Kind: "dir", Mode: 0o755}}}
	for i, l := range layers {
		if err := f.apply(l); err != nil {
			return nil, fmt.Errorf("unpack layer %d: %w", i, err)
		}
	}
	return f.tree(), nil
}

// flattener holds the stack so far; names of one hard-linked file share a node.
type flattener struct {
	nodes map[string]*Node
	// fresh are the paths of the layer at hand: whiteouts do not hide them.
	fresh map[string]bool
}

func (f *flattener) apply(l v1.Layer) (err error) {
	rc, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	f.fresh = map[string]bool{}
	for tr := tar.NewReader(rc); ; {
		h, err := tr.Next()
		if err == io.EOF {
			_, err = io.Copy(io.Discard, rc) // lets the reader verify the digest
			return err
		}
		if err != nil {
			return err
		}
		if err := f.entry(h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (f *flattener) entry(h *tar.Header, content io.Reader) error {
	p := path.Join("/", h.Name)
	dir, base := path.Split(p)
	dir = path.Clean(dir)
	if base == ".wh..wh..opq" {
		f.hide(dir, false)
		return nil
	}
	if hidden, ok := strings.CutPrefix(base, ".wh."); ok {
		f.hide(path.Join(dir, hidden), true)
		return nil
	}
	f.parents(dir)
	n, err := f.node(h, content)
	if err != nil {
		return err
	}
	if old := f.nodes[p]; old != nil && old.Kind == "dir" && n.Kind != "dir" {
		f.hide(p, true)
	}
	f.nodes[p] = n
	f.fresh[p] = true
	return nil
}

func (f *flattener) node(h *tar.Header, content io.Reader) (*Node, error) {
	n := &Node{Mode: h.Mode & 0o7777, UID: h.Uid, GID: h.Gid}
	for k, v := range h.PAXRecords {
		if attr, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if n.Xattrs == nil {
				n.Xattrs = map[string]string{}
			}
			n.Xattrs[attr] = v
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		sum := sha256.New()
		size, err := io.Copy(sum, content)
		if err != nil {
			return nil, err
		}
		n.Kind, n.Size, n.Content = "file", size, fmt.Sprintf("%x", sum.Sum(nil))
	case tar.TypeDir:
		n.Kind = "dir"
	case tar.TypeSymlink:
		n.Kind, n.Target, n.Mode = "symlink", h.Linkname, 0o777
	case tar.TypeLink:
		first := f.nodes[path.Join("/", h.Linkname)]
		if first == nil {
			return nil, fmt.Errorf("hard link to %s, which does not exist", h.Linkname)
		}
		return first, nil
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		n.Kind = map[byte]string{tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo"}[h.Typeflag]
		if h.Typeflag != tar.TypeFifo {
			n.Device = fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor)
		}
	default:
		return nil, fmt.Errorf("unknown tar entry type %q", h.Typeflag)
	}
	return n, nil
}

// hide removes what lower layers have below p, and p itself if self.
func (f *flattener) hide(p string, self bool) {
	prefix := strings.TrimSuffix(p, "/") + "/"
	for q := range f.nodes {
		if f.fresh[q] || q == "/" {
			continue
		}
		if strings.HasPrefix(q, prefix) || self && q == p {
			delete(f.nodes, q)
		}
	}
}

// parents makes the directories that a layer has entries in but no entry for.
func (f *flattener) parents(dir string) {
	for ; f.nodes[dir] == nil; dir = path.Dir(dir) {
		f.nodes[dir] = &Node{Kind: "dir", Mode: 0o755}
	}
}

// tree gives each path its own copy and marks hard links.
func (f *flattener) tree() Tree {
	paths := make([]string, 0, len(f.nodes))
	for p := range f.nodes {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	first, count := map[*Node]string{}, map[*Node]int{}
	for _, p := range paths {
		n := f.nodes[p]
		if count[n]++; count[n] == 1 {
			first[n] = p
		}
	}
	t := make(Tree, len(paths))
	for _, p := range paths {
		n := *f.nodes[p]
		if count[f.nodes[p]] > 1 {
			n.First = first[f.nodes[p]]
		}
		t[p] = n
	}
	return t
}

// ImageTree reads and flattens the image ref.
func (r *Registry) ImageTree(ctx context.Context, ref string) (Tree, error) {
	img, err := r.Image(ctx, ref)
	if err != nil {
		return nil, err
	}
	t, err := Flatten(img)
	if err != nil {
		return nil, fmt.Errorf("flatten %s: %w", ref, err)
	}
	return t, nil
}
