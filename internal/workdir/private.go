package workdir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A build's directory is prefix + random text; next to it lies a file of the same name + lockSuffix,
// which the build keeps locked. The lock goes with the process however it ends, so a lock that can be
// taken belongs to a dead build. Creation: lock, then directory. Removal: directory, then lock.
const (
	prefix     = "hako-"
	lockSuffix = ".lock"
)

var errLockTaken = errors.New("lock was taken by a clean-up")

// private is one build's directory.
type private struct {
	path string
	lock *os.File
}

// remover removes what is in the directory of a dead build that its owner cannot remove; an error says why it cannot, either.
type remover func(path string) error

// newPrivate sweeps parent and makes a new directory in it.
func newPrivate(parent string, stubborn remover) (*private, error) {
	sweep(parent, stubborn)
	const attempts = 100
	for range attempts {
		p, err := tryPrivate(filepath.Join(parent, prefix+rand.Text()))
		if errors.Is(err, errLockTaken) {
			continue
		}
		return p, err
	}
	return nil, fmt.Errorf("make a directory in %s: %w", parent, errLockTaken)
}

func tryPrivate(path string) (*private, error) {
	lock, err := os.OpenFile(path+lockSuffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create lock: %w", err)
	}
	p := &private{path: path, lock: lock}
	if !p.holdLock() {
		return nil, errors.Join(errLockTaken, lock.Close())
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, errors.Join(err, p.remove(nil))
	}
	return p, nil
}

// holdLock locks the lock file and makes sure that a sweep has not taken its name away meanwhile.
func (p *private) holdLock() bool {
	if unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(int(p.lock.Fd()), &st) == nil && st.Nlink > 0
}

// remove deletes the directory, whatever modes a build left in it, and its lock. If there is something that it cannot delete, the
// lock's file stays, so that somebody who can will find it.
func (p *private) remove(stubborn remover) error {
	err := removeAll(p.path)
	if err != nil && stubborn != nil {
		err = errors.Join(stubborn(p.path), removeAll(p.path))
	}
	if err == nil {
		err = os.Remove(p.path + lockSuffix)
	}
	return errors.Join(err, p.lock.Close())
}

// sweep removes what dead builds of the same user have left in parent. What it cannot remove stays:
// that is no reason not to build.
func sweep(parent string, stubborn remover) {
	names, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, n := range names {
		base, isLock := strings.CutSuffix(n.Name(), lockSuffix)
		if !isLock || !strings.HasPrefix(base, prefix) || !n.Type().IsRegular() {
			continue
		}
		sweepOne(filepath.Join(parent, base), stubborn)
	}
}

func sweepOne(path string, stubborn remover) {
	lock, err := os.OpenFile(path+lockSuffix, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	p := &private{path: path, lock: lock}
	var st unix.Stat_t
	if unix.Fstat(int(lock.Fd()), &st) != nil || int(st.Uid) != os.Geteuid() || !p.holdLock() {
		_ = lock.Close() // nothing was written
		return
	}
	_ = p.remove(stubborn) // best effort: the next build tries again
}

// removeAll is os.RemoveAll, but for directories that their owner may not write to.
func removeAll(path string) error {
	err := os.RemoveAll(path)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	walkErr := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // RemoveAll below reports what is left
		}
		return os.Chmod(p, 0o700) //nolint:gosec // a private directory on its way out
	})
	return errors.Join(os.RemoveAll(path), walkErr)
}
