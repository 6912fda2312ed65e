// Package workdir finds the one place where a build keeps its state and cleans up behind it.
//
// Two kinds of files are needed. What a sandbox maps has to be mappable executable: the pages of a step's
// programs come from it, and a noexec mount (Docker's default --tmpfs /tmp is one) would kill each of them.
// Everything else, blobs above all, only needs room. So places are judged by trying, and where no place
// will do, files live in memory (memfd_create), which works in a container that may write nothing at all.
//
// Every build has its own subdirectory, so many builds can share a place. Nothing is written outside it,
// nothing is ever synced, and nothing is left: files that steps map have no name from the start,
// Close removes the rest, and Open removes what builds that were killed have left.
package workdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Options says where to look.
type Options struct {
	// Explicit is the directory that the user named; it is created if missing and nothing else is tried.
	Explicit string
	// Candidates are tried if Explicit is empty. They are not created; the first usable one wins,
	// but a disk is preferred to a tmpfs.
	Candidates []string
	// Stubborn, if not nil, is called for the directory of a build that was killed if there is something in it that this user cannot
	// delete, because it belongs to users of a user namespace. It deletes that, or says why it cannot.
	Stubborn func(path string) error
}

// Mode says which files live where.
type Mode uint8

// The modes.
const (
	// Disk is a directory for everything.
	Disk Mode = iota + 1
	// DiskNoExec is a directory for blobs, and memory for what sandboxes map.
	DiskNoExec
	// Memory is memory for everything.
	Memory
)

// String is a phrase for people.
func (m Mode) String() string {
	switch m {
	case Disk:
		return "directory"
	case DiskNoExec:
		return "directory, mapped files in memory"
	case Memory:
		return "memory"
	}
	return "unknown"
}

// Attempt is what came of trying one place.
type Attempt struct {
	Path string
	// Err is why no file can be created there; ExecErr is why a file there cannot be mapped executable.
	Err, ExecErr error
	// Tmpfs says that the place is memory, too.
	Tmpfs bool
}

// Report says what was found and why.
type Report struct {
	Mode Mode
	// Data and Exec are the places that were chosen for blobs and for mapped files; empty means memory.
	Data, Exec string
	// InMemory says that what is stored counts as memory of the container.
	InMemory bool
	Tried    []Attempt
}

// Dir is the state of one build. It may be used from many goroutines.
type Dir struct {
	report     Report
	data, exec *private
	created    []string // directories that Open made, outermost first
	handed     handed

	closeOnce sync.Once
	closeErr  error
}

// Open finds a place and makes a subdirectory for this build in it.
// Only an explicit directory that cannot be used is an error, since memory always works.
func Open(opts Options) (*Dir, error) {
	d := &Dir{}
	candidates := opts.Candidates
	if opts.Explicit != "" {
		created, err := makeDirs(opts.Explicit)
		d.created = created
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create work directory: %w", err), d.Close())
		}
		candidates = []string{opts.Explicit}
	}
	d.report.Tried = tryAll(candidates)
	if opts.Explicit != "" && d.report.Tried[0].Err != nil {
		err := fmt.Errorf("use work directory %s: %w", opts.Explicit, d.report.Tried[0].Err)
		return nil, errors.Join(err, d.Close())
	}
	if err := d.choose(opts.Stubborn); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Dir) choose(stubborn remover) error {
	r := &d.report
	r.Exec = best(r.Tried, func(a Attempt) bool { return a.Err == nil && a.ExecErr == nil })
	r.Data = best(r.Tried, func(a Attempt) bool { return a.Err == nil })
	switch {
	case r.Exec != "":
		r.Mode = Disk
	case r.Data != "":
		r.Mode = DiskNoExec
	default:
		r.Mode = Memory
	}
	r.InMemory = true
	for _, a := range r.Tried {
		if a.Path == r.Data && !a.Tmpfs {
			r.InMemory = false
		}
	}
	if r.Data == "" {
		return nil
	}
	var err error
	if d.data, err = newPrivate(r.Data, stubborn); err != nil {
		return err
	}
	switch r.Exec {
	case "":
	case r.Data:
		d.exec = d.data
	default:
		d.exec, err = newPrivate(r.Exec, stubborn)
	}
	return err
}

// Report says which place was chosen, and why the others were not.
func (d *Dir) Report() Report { return d.report }

// Made says whether Open made the directory, which Close then removes.
func (d *Dir) Made() bool { return len(d.created) > 0 }

// Path is this build's own directory for named files, or empty if there is none and all state is in memory.
func (d *Dir) Path() string {
	if d.data == nil {
		return ""
	}
	return d.data.path
}

// File creates an empty file for data, without a name and close-on-exec. The caller closes it.
// The name is only for the eyes of whoever looks at the open files.
func (d *Dir) File(name string) (*os.File, error) { return d.file(d.data, name) }

// ExecFile is like File, but the file can be mapped executable.
func (d *Dir) ExecFile(name string) (*os.File, error) { return d.file(d.exec, name) }

func (d *Dir) file(p *private, name string) (f *os.File, err error) {
	if p == nil {
		f, err = memfd(name)
	} else {
		f, err = unnamedFile(p.path, name)
	}
	if err == nil {
		d.handed.add(f)
	}
	return f, err
}

// Close removes everything. Files that are still open stay readable. It is idempotent.
func (d *Dir) Close() error {
	d.closeOnce.Do(func() {
		errs := []error{d.handed.keep(nil)}
		if d.exec != nil && d.exec != d.data {
			errs = append(errs, d.exec.remove(nil))
		}
		if d.data != nil {
			errs = append(errs, d.data.remove(nil))
		}
		for i := len(d.created) - 1; i >= 0; i-- {
			err := unix.Rmdir(d.created[i])
			if err == nil || errors.Is(err, unix.ENOENT) {
				continue
			}
			if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("remove %s: %w", d.created[i], err))
			}
			break // somebody else uses it by now
		}
		d.closeErr = errors.Join(errs...)
	})
	return d.closeErr
}

// makeDirs creates path and its parents and returns those that were missing, outermost first.
func makeDirs(path string) ([]string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	var missing []string
	for p := abs; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); !errors.Is(err, fs.ErrNotExist) || p == filepath.Dir(p) {
			break
		}
		missing = append(missing, p)
	}
	var created []string
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return created, err
		}
		created = append(created, missing[i])
	}
	return created, nil
}
