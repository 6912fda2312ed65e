package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"hako/internal/diag"
	"hako/internal/tree"
)

const (
	defaultName = "Dockerfile"
	// maxFile is the size of a Dockerfile or ignore file that is read at most.
	maxFile = 16 << 20 // 16 MiB
)

// dockerfile is a Dockerfile that was found.
type dockerfile struct {
	content []byte
	// name is how the user knows it.
	name string
	// sibling reads a file whose name starts like the Dockerfile's.
	sibling func(name string) ([]byte, error)
}

// findDockerfile reads the Dockerfile. One inside the context is read without leaving the context, because whoever
// wrote the context could otherwise point it at any file of the builder's and read that in the error message.
func findDockerfile(r *root, o *Options) (*dockerfile, error) {
	if o.Given != nil {
		none := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
		return &dockerfile{content: o.Given.Content, name: o.Given.Name, sibling: none}, nil
	}
	for _, p := range o.places() {
		read := r.reader(o.Cwd, p.within)
		for _, name := range spellings(p.name) {
			content, err := read(name)
			if r.lacks(err) {
				continue
			}
			if err != nil {
				return nil, &diag.Error{
					What: "read Dockerfile " + name, Cause: reason(err), Hint: "Give the path of a readable file with --dockerfile.",
				}
			}
			return &dockerfile{content: content, name: name, sibling: read}, nil
		}
	}
	if r.absent != nil {
		return nil, r.absent
	}
	where := r.path
	if where == "" {
		where = o.Source
	}
	return nil, &diag.Error{
		What: fmt.Sprintf("Dockerfile %s not found in %s or in the build context %s", o.places()[0].name, o.Cwd, where),
		Hint: "Give its path with --dockerfile.",
	}
}

// place is a path that a Dockerfile may have: relative to the context if within is set, else to the current directory.
type place struct {
	within bool
	name   string
}

// places are where the Dockerfile may be, the first that is there counts.
func (o *Options) places() []place {
	if o.Dockerfile == "" {
		return []place{{true, defaultName}, {false, defaultName}}
	}
	return []place{{false, o.Dockerfile}, {true, o.Dockerfile}}
}

// spellings are the names that stand for a Dockerfile of that name.
func spellings(name string) []string {
	if filepath.Base(name) != defaultName {
		return []string{name}
	}
	return []string{name, filepath.Join(filepath.Dir(name), strings.ToLower(defaultName))}
}

// reader returns what reads files that are named relative to the context, or else to the directory cwd.
func (r *root) reader(cwd string, within bool) func(name string) ([]byte, error) {
	if r.path == "" && within {
		return func(name string) ([]byte, error) { return readIn(r.tree, name) }
	}
	base := cwd
	if within {
		base = r.path
	}
	return func(name string) ([]byte, error) {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(base, path)
		}
		if r.path != "" {
			if rel, ok := inside(r.path, path); ok {
				return readIn(r.tree, rel)
			}
		}
		return readHost(path)
	}
}

// inside returns path relative to the directory root, if it is in it as written or as it really is.
func inside(root, path string) (string, bool) {
	if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
		return rel, true
	}
	real := filepath.Join(realPath(filepath.Dir(path)), filepath.Base(path))
	rel, err := filepath.Rel(realPath(root), real)
	return rel, err == nil && filepath.IsLocal(rel)
}

var (
	errTooLarge   = fmt.Errorf("it is larger than %d MiB", maxFile>>20)
	errNotRegular = errors.New("it is not a regular file")
)

// readIn reads a file of the context, through links that do not leave it.
func readIn(t tree.Tree, path string) ([]byte, error) {
	at, err := tree.Resolve(t, path, true)
	if err != nil {
		return nil, err
	}
	e, err := t.Lstat(at)
	if err != nil {
		return nil, err
	}
	if e.Kind != tree.Regular {
		return nil, errNotRegular
	}
	r, err := t.Open(at)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // nothing was written
	return readAll(r)
}

func readHost(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// A pipe is fine here: shells make one for -f <(command).
	if fi.IsDir() || fi.Mode()&(fs.ModeDevice|fs.ModeSocket) != 0 {
		return nil, errNotRegular
	}
	return readAll(f)
}

func readAll(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, errTooLarge
	}
	return b, nil
}
