package filecopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"hako/internal/diag"
	"hako/internal/rootfs"
	"hako/internal/spool"
	"hako/internal/tree"
)

// copier carries out one instruction.
type copier struct {
	ctx     context.Context //nolint:containedctx // a copier lives as long as the call it serves
	req     *Request
	name    string // COPY or ADD
	draft   *draft
	dest    string // absolute, clean but for a final "/" or "/."
	owner   *owner
	chmod   *chmod
	dirMode uint32 // of directories that are made on the way
	spool   *spool.Spool
	source  Source // of the pattern that is copied now
	// warnings are what Changes.Warnings returns.
	warnings []string
}

func newCopier(ctx context.Context, req *Request) (*copier, error) {
	c := &copier{ctx: ctx, req: req, name: "COPY", dest: cleanDest(req.Dest), dirMode: 0o755}
	if req.Add {
		c.name = "ADD"
	}
	c.source = Source{Tree: req.From, Name: req.FromName, Unpack: req.Unpack}
	c.spool = spool.New(req.Spool)
	var err error
	if c.draft, err = newDraft(req.Below, req.Now); err != nil {
		return nil, fmt.Errorf("%s to %s: %w", c.name, req.Dest, err)
	}
	if c.owner, err = chownOwner(req.Below, req.Chown); err != nil {
		return nil, &diag.Error{
			What: fmt.Sprintf("%s --chown=%s", c.name, req.Chown), Cause: err,
			Hint: "Create the user and group in an earlier RUN, or give their numbers.",
		}
	}
	if c.chmod, err = parseChmod(req.Chmod); err != nil {
		return nil, &diag.Error{
			What: fmt.Sprintf("%s --chmod=%s", c.name, req.Chmod), Cause: err,
			Hint: `Give an octal mode up to 07777 ("755") or a symbolic one ("u=rwX,go=rX").`,
		}
	}
	if c.chmod != nil && !c.chmod.symbolic {
		c.dirMode = c.chmod.octal & modePerm // as BuildKit, which makes parents with the files' mode
	}
	return c, nil
}

// cleanDest keeps what makes a destination a directory: a final "/" or "/.".
func cleanDest(s string) string {
	p := path.Join("/", s)
	switch {
	case p == "/":
		return p
	case strings.HasSuffix(s, "/."):
		return p + "/."
	case strings.HasSuffix(s, "/"):
		return p + "/"
	}
	return p
}

func chownOwner(below tree.Tree, spec string) (*owner, error) {
	if spec == "" {
		return nil, nil //nolint:nilnil // nobody is an answer here
	}
	uid, gid, err := rootfs.LookupOwner(below, spec)
	if err != nil {
		return nil, err
	}
	return &owner{uid: uid, gid: gid}, nil
}

// workdirOwner finds the user that a WORKDIR's directory belongs to. A name that the stage does not know means root,
// as for BuildKit: such a stage is made for an image in which the name exists. A group that it does not know changes nothing.
func workdirOwner(below tree.Tree, spec string) (*owner, error) {
	o, err := chownOwner(below, spec)
	if below == nil || !isUnknown(err) {
		return o, err
	}
	user, group, _ := strings.Cut(spec, ":")
	if o, err = chownOwner(below, user); isUnknown(err) {
		o, err = &owner{}, nil
	}
	if err != nil || group == "" {
		return o, err
	}
	g, err := chownOwner(below, "0:"+group)
	switch {
	case err == nil:
		o.gid = g.gid
	case !isUnknown(err):
		return nil, err
	}
	return o, nil
}

func isUnknown(err error) bool {
	return errors.Is(err, rootfs.ErrNoUser) || errors.Is(err, rootfs.ErrNoGroup)
}

// oneCopy is the copy of one source; hard links are kept inside one source only.
type oneCopy struct {
	*copier
	from   tree.Tree
	inodes map[uint64]*node
	filter *filter
	// taken says that something in a directory was copied.
	taken bool
}

// level is a directory of the source on the way to what is copied.
type level struct {
	up      *level // nil for the source itself
	entry   tree.Entry
	name    string
	rel     string // its path relative to the source, "." for that
	verdict verdict
	// node is the directory that it is copied to: nil until something is copied into it.
	node *node
}

// copy copies what is at src onto dst. Both are literal paths. A directory that is there already keeps its
// metadata and takes the source's time.
func (c *oneCopy) copy(src, dst string) error {
	e, err := c.from.Lstat(src)
	if err != nil {
		return c.readError(src, err)
	}
	if e.Kind != tree.Dir {
		return c.file(e, dst)
	}
	n, err := c.draft.find(dst)
	if err != nil {
		return c.destError(err)
	}
	if n == nil { // target made it
		return fmt.Errorf("%s: directory /%s is missing", c.name, dst)
	}
	if !n.isDir() {
		return c.notDirectory(n)
	}
	if err := c.contents(&level{entry: e, rel: ".", node: n}); err != nil {
		return err
	}
	n.meta.setTime(e.ModTime)
	if src == "." && e.ModTime.Equal(time.Unix(0, 0)) {
		n.meta.setTime(c.draft.now) // no layer says when the root was made
	}
	return nil
}

// contents copies what is in the directory l.
func (c *oneCopy) contents(l *level) error {
	names, err := c.from.ReadDir(l.entry.Path)
	if err != nil {
		return c.readError(l.entry.Path, err)
	}
	for _, name := range names {
		if err := c.entry(l, name); err != nil {
			return err
		}
	}
	return nil
}

// entry copies the name in l with its metadata, if the filter takes it.
func (c *oneCopy) entry(l *level, name string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	src, rel := join(l.entry.Path, name), join(l.rel, name)
	v, err := c.filter.judge(rel, &l.verdict)
	if err != nil {
		return fmt.Errorf("%s: match /%s: %w", c.name, src, err)
	}
	if !v.take && !v.open {
		return nil
	}
	if len(src) >= maxPath {
		return &diag.Error{
			What: fmt.Sprintf("%s: a path in %s is longer than Linux allows: %.40s…/%.40s", c.name, c.source.Name, src, name),
			Hint: "Leave it out with .dockerignore.",
		}
	}
	e, err := c.from.Lstat(src)
	if err != nil {
		return c.readError(src, err)
	}
	c.taken = c.taken || v.take
	if e.Kind == tree.Dir {
		return c.directory(&level{up: l, entry: e, name: name, rel: rel, verdict: v})
	}
	if !v.take {
		return nil
	}
	dir, err := c.made(l)
	if err != nil {
		return err
	}
	old, err := c.draft.child(dir, name)
	if err != nil {
		return c.destError(err)
	}
	return c.put(e, dir, name, old)
}

// directory copies the directory l if the filter takes it, and what is in it.
func (c *oneCopy) directory(l *level) error {
	if l.verdict.take {
		if _, err := c.made(l); err != nil {
			return err
		}
	}
	if l.verdict.open {
		if err := c.contents(l); err != nil {
			return err
		}
	}
	if l.verdict.take {
		c.finish(l.node, l.entry)
	}
	return nil
}

// made returns the directory that l is copied to. One that is only on the way to what the filter takes is made when it
// is needed, with the metadata of the source but for the time; if it is there already it only gets the mode.
func (c *oneCopy) made(l *level) (*node, error) {
	if l.node != nil {
		return l.node, nil
	}
	dir, err := c.made(l.up)
	if err != nil {
		return nil, err
	}
	n, err := c.draft.child(dir, l.name)
	switch {
	case err != nil:
		return nil, c.destError(err)
	case n == nil:
		n = c.draft.mkdir(dir, l.name, l.entry.Mode)
		c.finish(n, l.entry)
	case !n.isDir():
		return nil, c.notDirectory(n)
	default:
		n.meta.setMode(l.entry.Mode)
		n.touched = true
	}
	l.node = n
	return n, nil
}

// file copies a file to the literal path dst, whose directory exists.
func (c *oneCopy) file(e tree.Entry, dst string) error {
	at, err := c.replace(dst, "/"+e.Path)
	if err != nil {
		return err
	}
	return c.put(e, at.dir, at.name, nil)
}

// place is a name in a directory with nothing there.
type place struct {
	dir  *node
	name string
}

// replace makes room for a file at the literal path dst. what names the file in errors.
func (c *copier) replace(dst, what string) (place, error) {
	old, err := c.draft.find(dst)
	if err != nil {
		return place{}, c.destError(err)
	}
	if old != nil {
		if err := c.clear(old, what); err != nil {
			return place{}, err
		}
	}
	dir, err := c.draft.find(path.Dir(dst))
	if err == nil && (dir == nil || !dir.isDir()) {
		err = &notDirectoryError{path: path.Dir(dst)}
	}
	if err != nil {
		return place{}, c.destError(err)
	}
	return place{dir: dir, name: path.Base(dst)}, nil
}

// clear removes what a file is copied over, which must not be a directory.
func (c *copier) clear(old *node, what string) error {
	if old.isDir() {
		return &diag.Error{
			What: fmt.Sprintf("%s: cannot replace the directory /%s with the file %s", c.name, old.path(), what),
			Hint: "Remove the directory in an earlier RUN, or choose another destination.",
		}
	}
	c.draft.remove(old)
	return nil
}

// put copies a file into dir under name, over old if that is not nil.
func (c *oneCopy) put(e tree.Entry, dir *node, name string, old *node) error {
	if old != nil {
		if err := c.clear(old, "/"+e.Path); err != nil {
			return err
		}
	}
	linked := e.Links > 1 && e.Inode != 0 && e.Kind == tree.Regular
	if first := c.inodes[e.Inode]; linked && first != nil {
		c.draft.link(dir, name, first)
		return nil
	}
	i := &inode{}
	switch e.Kind {
	case tree.Regular:
		i.content = treeOpener{from: c.from, path: e.Path}
	case tree.Socket:
		e.Kind = tree.Regular // as BuildKit: an empty file stands for it
	case tree.Symlink:
		i.meta.more = &moreMeta{linkname: e.Linkname}
	case tree.CharDevice, tree.BlockDevice:
		i.meta.more = &moreMeta{major: e.Major, minor: e.Minor}
	case tree.Fifo:
	default:
		return fmt.Errorf("%s: /%s is of unknown kind %d", c.name, e.Path, e.Kind)
	}
	n := c.draft.put(dir, name, i)
	c.finish(n, e)
	if linked {
		c.inodes[e.Inode] = n
	}
	return nil
}

// finish gives n the metadata of the source e, and what --chown and --chmod say.
func (c *copier) finish(n *node, e tree.Entry) {
	n.touched = true
	m := &n.meta
	m.kind, m.size, m.uid, m.gid = e.Kind, e.Size, e.UID, e.GID
	m.setTime(e.ModTime)
	c.owner.apply(n)
	if e.Kind != tree.Symlink {
		e.Mode = c.chmod.apply(e.Mode&modeAll, e.Kind == tree.Dir)
	}
	m.setMode(e.Mode)
	m.addXattrs(keptXattrs(e.Xattrs))
}

func (c *copier) notDirectory(n *node) error {
	return &diag.Error{
		What: fmt.Sprintf("%s: cannot copy a directory to /%s, which is not a directory", c.name, n.path()),
		Hint: "If it is a symbolic link, copy to the directory that it points to.",
	}
}

func (c *copier) destError(err error) error {
	var d *diag.Error
	if errors.As(err, &d) {
		return err
	}
	e := &diag.Error{What: fmt.Sprintf("%s to %s", c.name, c.req.Dest), Cause: err}
	var nd *notDirectoryError
	switch {
	case errors.As(err, &nd), errors.Is(err, syscall.ENOTDIR):
		e.Hint = "Choose a destination with nothing but directories on the way."
	case errors.Is(err, syscall.ELOOP):
		e.Hint = "Choose a destination without a loop of symbolic links."
	default:
		return fmt.Errorf("%s to %s: %w", c.name, c.req.Dest, err)
	}
	return e
}

// readError is a source that could not be read although it was listed.
func (c *copier) readError(p string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &diag.Error{
			What: fmt.Sprintf("%s: /%s vanished from %s while it was copied", c.name, p, c.source.Name),
			Hint: "Do not change the files while they are copied.",
		}
	}
	if errors.Is(err, os.ErrPermission) {
		return &diag.Error{
			What:  fmt.Sprintf("%s: read /%s of %s", c.name, p, c.source.Name),
			Cause: err,
			Hint:  "Make it readable for the user that runs the build, or leave it out with .dockerignore.",
		}
	}
	return fmt.Errorf("%s: read /%s of %s: %w", c.name, p, c.source.Name, err)
}
