// Package prepared keeps layers of base images as sandboxes mount them, so that a build finds them ready: in a directory
// of a volume that many machines share, or beside the state of the builds of one container.
//
// A layer is one file, named by its diffID: the EROFS image, and behind it the list of what is in it and a footer. It appears
// whole or not at all, and never changes. Builds that want the same layer at the same time wait for the one that makes it; if that
// is killed, the next one makes it.
//
// What is checked before a layer is used costs next to nothing: the list has its SHA-256 in the footer, the image has its size
// and its time of modification there. So files that were cut off, overwritten or mixed up are not used, and neither are those of
// a machine that lost its power, if they were not known to be on the disk. Bytes that a failing disk changes are not found, and
// neither are those that somebody changes on purpose: who can write to the directory decides what steps see. Steps cannot.
// A builder that is root takes what root has made, and nothing else, because it lets the kernel mount it.
package prepared

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/layer"
)

// Options says how a store works.
type Options struct {
	// Dir is the directory; it is made when something is to be kept.
	Dir string
	// LimitBytes is what the directory may hold when the store is closed: what was not used for longest goes.
	LimitBytes int64
	// Durable says that the directory outlives this machine: layers are shown to others once they are on its disk. Without it,
	// what was made before the last start of the machine is not used.
	Durable bool
	// Own says to use only what the same user has made.
	Own bool
	// Stop, if not nil, is closed when there is no time to wait for disks any more.
	Stop <-chan struct{}
}

// Store is a directory of layers. It may be used from many goroutines.
type Store struct {
	options Options
	boot    string
	writing sync.WaitGroup // layers on their way to the disk

	mu    sync.Mutex // guards the rest
	added bool
	late  []error
}

// Open returns the store in o.Dir. Nothing is read or made yet.
func Open(o Options) *Store {
	s := &Store{options: o}
	if !o.Durable {
		s.boot = bootID()
	}
	return s
}

// bootID tells this run of the machine from others. Empty if it is unknown.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// Dir is where the layers are.
func (s *Store) Dir() string { return s.options.Dir }

func (s *Store) path(diffID digest.Digest) string {
	return filepath.Join(s.options.Dir, diffID.Encoded())
}

// Get opens a layer, or returns nil if there is none that can be used. The caller closes its File.
func (s *Store) Get(diffID digest.Digest) *layer.Image {
	if diffID.Validate() != nil {
		return nil
	}
	f, err := os.OpenFile(s.path(diffID), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	im, err := s.read(f, diffID)
	if err != nil {
		_ = f.Close() // nothing was written
		return nil
	}
	// When it was last used. It may be on a volume that we cannot write to.
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, f.Name(), []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_OMIT}}, unix.AT_SYMLINK_NOFOLLOW)
	return im
}

var (
	errOwner = errors.New("another user made it")
	errBoot  = errors.New("it was made before the machine was started")
)

func (s *Store) read(f *os.File, diffID digest.Digest) (*layer.Image, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if me := uint32(os.Geteuid()); (s.options.Own || me == 0) && st.Uid != me { //nolint:gosec // never negative
		return nil, errOwner
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fs.ErrInvalid
	}
	foot, err := readFooter(f, st.Size)
	if err != nil {
		return nil, err
	}
	switch {
	case foot.DiffID != diffID:
		return nil, errFooter
	case foot.Time != st.Mtim.Nano():
		return nil, errTouched
	case foot.Boot != "" && foot.Boot != bootID():
		return nil, errBoot
	}
	ix, err := foot.index(f)
	if err != nil {
		return nil, err
	}
	return &layer.Image{File: f, Index: ix}, nil
}

// Close waits for what is on its way to the disk, and removes what is too much.
func (s *Store) Close() error {
	s.writing.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := s.late
	if s.added {
		errs = append(errs, s.prune())
	}
	s.late, s.added = nil, false
	return errors.Join(errs...)
}

// prune removes the layers that were not used for longest, until the rest is within the limit.
func (s *Store) prune() error {
	names, err := os.ReadDir(s.options.Dir)
	if err != nil {
		return fmt.Errorf("look through prepared layers: %w", err)
	}
	type entry struct {
		path string
		used time.Time
		size int64
	}
	var all []entry
	var sum int64
	for _, n := range names {
		path := filepath.Join(s.options.Dir, n.Name())
		if strings.HasPrefix(n.Name(), tempPrefix) {
			sweep(path)
			continue
		}
		var st unix.Stat_t
		if digest.NewDigestFromEncoded(digest.SHA256, n.Name()).Validate() != nil || unix.Lstat(path, &st) != nil {
			continue
		}
		size := st.Blocks * 512 //nolint:mnd // stat(2): units of 512 bytes
		all = append(all, entry{path, time.Unix(st.Atim.Unix()), size})
		sum += size
	}
	slices.SortFunc(all, func(a, b entry) int { return a.used.Compare(b.used) })
	var errs []error
	for _, e := range all {
		if sum <= s.options.LimitBytes {
			break
		}
		if err := os.Remove(e.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		sum -= e.size
	}
	return errors.Join(errs...)
}

// sweep removes a file that somebody was writing who was killed.
func sweep(path string) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.Remove(path) // waste, not harm: the next one tries again
	}
	_ = f.Close() // nothing was written
}
