package gittree

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"hako/internal/diag"
	"hako/internal/gitpack"
	"hako/internal/gitwire"
	"hako/internal/tree"
)

// gitDir are the files that make git work in the tree: a directory .git with the pack as it came, and a file .git in each
// submodule that points into it. It is what "git clone --depth 1" and "git checkout --detach" would leave, but for hooks
// and logs: HEAD is the commit, the reference that it was found by is there, and the index knows every file.
//
// The index has no times and sizes of files: git compares the files themselves at its first use, and finds them unchanged.
type gitDir struct {
	files map[string]*gitFile
	names map[string][]string // of directories, sorted
	time  time.Time
}

// gitFile is a file of it.
type gitFile struct {
	mode uint32
	size int64
	open func() io.Reader
}

const dotGit = ".git"

// newGitDir makes the files for t.
func newGitDir(ctx context.Context, t *Tree) (*gitDir, error) {
	g := &gitDir{files: map[string]*gitFile{}, names: map[string][]string{}, time: t.time}
	b := &gitDirBuilder{ctx: ctx, dir: g}
	if err := b.repository(t.top, dotGit, ""); err != nil {
		return nil, err
	}
	for p := range g.names {
		slices.Sort(g.names[p])
		g.names[p] = slices.Compact(g.names[p])
	}
	return g, nil
}

func (g *gitDir) lstat(p string) (tree.Entry, bool) {
	if f := g.files[p]; f != nil {
		return tree.Entry{Path: p, Kind: tree.Regular, Mode: f.mode, Size: f.size, ModTime: g.time}, true
	}
	if g.owns(p) && g.names[p] != nil {
		return tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755, ModTime: g.time}, true
	}
	return tree.Entry{}, false
}

// owns says whether p is a directory of its own, and not one of the repository that has a file .git.
func (g *gitDir) owns(p string) bool { return tree.Within(p, dotGit) }

// readDir returns the names in p, and whether these are all.
func (g *gitDir) readDir(p string) ([]string, bool) {
	names := g.names[p]
	return slices.Clone(names), names != nil && g.owns(p)
}

func (g *gitDir) open(p string) (io.ReadCloser, bool) {
	f := g.files[p]
	if f == nil {
		return nil, false
	}
	return io.NopCloser(f.open()), true
}

// gitDirBuilder fills a gitDir.
type gitDirBuilder struct {
	ctx context.Context //nolint:containedctx // lives as long as the call it serves
	dir *gitDir
}

// mkdir makes a directory and those above it.
func (b *gitDirBuilder) mkdir(p string) {
	if b.dir.names[p] == nil {
		b.dir.names[p] = []string{}
	}
	if p == "." {
		return
	}
	above := path.Dir(p)
	if !b.dir.owns(p) {
		return
	}
	b.mkdir(above)
	b.dir.names[above] = append(b.dir.names[above], path.Base(p))
}

func (b *gitDirBuilder) put(p string, f *gitFile) {
	b.mkdir(path.Dir(p))
	b.dir.files[p] = f
	b.dir.names[path.Dir(p)] = append(b.dir.names[path.Dir(p)], path.Base(p))
}

// write puts a file with that content.
func (b *gitDirBuilder) write(p, content string) {
	b.put(p, &gitFile{mode: 0o644, size: int64(len(content)), open: func() io.Reader { return strings.NewReader(content) }})
}

// repository makes the directory at p for the commit of r. worktree is where its files are, relative to p; empty for the
// top one, whose files are beside it.
func (b *gitDirBuilder) repository(r *repository, p, worktree string) error {
	b.write(path.Join(p, "HEAD"), r.id.String()+"\n")
	b.write(path.Join(p, "config"), config(r, worktree))
	b.write(path.Join(p, "description"), "Unnamed repository; edit this file 'description' to name the repository.\n")
	b.write(path.Join(p, "info/exclude"), "# Patterns of files that git shall not see, one on each line.\n")
	b.mkdir(path.Join(p, "refs/heads"))
	b.mkdir(path.Join(p, "refs/tags"))
	if strings.HasPrefix(r.name, "refs/") && path.Clean(r.name) == r.name {
		b.write(path.Join(p, r.name), r.want.String()+"\n")
	}
	var shallow strings.Builder
	for _, id := range r.shallow {
		shallow.WriteString(id.String() + "\n")
	}
	if shallow.Len() > 0 {
		b.write(path.Join(p, "shallow"), shallow.String())
	}
	if err := b.objects(r.pack, path.Join(p, "objects")); err != nil {
		return err
	}
	if err := b.index(r, path.Join(p, "index")); err != nil {
		return err
	}
	return b.modules(r, p)
}

// config is the repository's configuration.
func config(r *repository, worktree string) string {
	var b strings.Builder
	version := 0
	if r.pack.Format() != gitpack.SHA1 {
		version = 1
	}
	fmt.Fprintf(&b, "[core]\n\trepositoryformatversion = %d\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n", version)
	if worktree != "" {
		fmt.Fprintf(&b, "\tworktree = %s\n", quoteConfig(worktree))
	}
	if version == 1 {
		fmt.Fprintf(&b, "[extensions]\n\tobjectformat = %s\n", r.pack.Format())
	}
	fmt.Fprintf(&b, "[remote \"origin\"]\n\turl = %s\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n", quoteConfig(gitwire.Redact(r.remote)))
	return b.String()
}

// quoteConfig writes a value so that git reads it as it is.
func quoteConfig(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// objects puts the pack and its index.
func (b *gitDirBuilder) objects(p *gitpack.Pack, at string) error {
	b.mkdir(path.Join(at, "info"))
	var index bytes.Buffer
	if err := p.WriteIndex(&index); err != nil {
		return err
	}
	name := path.Join(at, "pack", "pack-"+p.Checksum().String())
	b.put(name+".pack", &gitFile{mode: 0o444, size: p.Size(), open: p.Reader})
	data := index.Bytes()
	b.put(name+".idx", &gitFile{mode: 0o444, size: int64(len(data)), open: func() io.Reader { return bytes.NewReader(data) }})
	return nil
}

// modules puts the repositories of submodules.
func (b *gitDirBuilder) modules(r *repository, p string) error {
	if len(r.subs) == 0 {
		return nil
	}
	modules, err := r.modules(b.ctx)
	if err != nil {
		return err
	}
	for at, sub := range r.subs {
		if sub == nil {
			continue
		}
		name := modules[at].name
		if err := checkModuleName(name); err != nil {
			return &diag.Error{What: r.title() + ": " + modulesName, Cause: err}
		}
		full := path.Join(treePath(r), at)
		home := path.Join(p, "modules", name)
		b.write(path.Join(full, dotGit), "gitdir: "+up(full)+home+"\n")
		if err := b.repository(sub, home, up(home)+full); err != nil {
			return err
		}
	}
	return nil
}

// checkModuleName refuses names that would leave the directory of modules, as git does.
func checkModuleName(name string) error {
	if name == "" || path.IsAbs(name) || path.Clean(name) != name {
		return fmt.Errorf("the name %q of a submodule is not allowed", clip(name))
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || part == "." {
			return fmt.Errorf("the name %q of a submodule is not allowed", clip(name))
		}
	}
	return nil
}

// treePath is where the files of r are in the tree.
func treePath(r *repository) string {
	at := "."
	for ; r.parent != nil; r = r.parent {
		at = path.Join(r.path, at)
	}
	return at
}

// up leads from the directory p to the root.
func up(p string) string {
	if p == "." {
		return ""
	}
	return strings.Repeat("../", strings.Count(p, "/")+1)
}

// index puts the list of files that git compares with the tree (gitformat-index(5), version 2).
func (b *gitDirBuilder) index(r *repository, at string) error {
	w := &indexBuilder{ctx: b.ctx, repo: r}
	if err := w.dir(r.commit.tree, ""); err != nil {
		return err
	}
	slices.SortFunc(w.entries, func(a, b indexEntry) int { return strings.Compare(a.path, b.path) })
	data := w.bytes()
	b.put(at, &gitFile{mode: 0o644, size: int64(len(data)), open: func() io.Reader { return bytes.NewReader(data) }})
	return nil
}

// indexBuilder collects the files of a commit.
type indexBuilder struct {
	ctx     context.Context //nolint:containedctx // lives as long as the call it serves
	repo    *repository
	entries []indexEntry
}

type indexEntry struct {
	path string
	entry
}

func (w *indexBuilder) dir(id gitpack.ID, at string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	d, err := w.repo.readDir(w.ctx, id)
	if err != nil {
		return err
	}
	for _, e := range d.entries {
		p := path.Join(at, e.name)
		if e.kind != directory {
			w.entries = append(w.entries, indexEntry{p, e})
			continue
		}
		if err := w.dir(e.id, p); err != nil {
			return err
		}
	}
	return nil
}

func (w *indexBuilder) bytes() []byte {
	out := []byte("DIRC")
	out = binary.BigEndian.AppendUint32(out, 2)
	out = binary.BigEndian.AppendUint32(out, uint32(len(w.entries))) //nolint:gosec // bounded by Limits.Entries
	for _, e := range w.entries {
		start := len(out)
		out = append(out, make([]byte, 24)...) // times, device, inode: unknown
		mode := map[entryKind]uint32{file: 0o100644, executable: 0o100755, symlink: 0o120000, gitlink: 0o160000}[e.kind]
		out = binary.BigEndian.AppendUint32(out, mode)
		out = append(out, make([]byte, 12)...) // owner, group, size: unknown
		out = append(out, e.id.Bytes()...)
		out = binary.BigEndian.AppendUint16(out, uint16(min(len(e.path), 0xfff))) //nolint:gosec // bounded here
		out = append(out, e.path...)
		// At least one zero, and as many as make the length a multiple of eight.
		out = append(out, make([]byte, 8-(len(out)-start)%8)...)
	}
	return append(out, w.repo.pack.Format().Sum(out)...)
}
