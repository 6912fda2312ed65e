package prepared

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/layer"
)

const tempPrefix = ".new-"

// Entry is a layer that is being made. While it is, nobody else makes it.
type Entry struct {
	store  *Store
	diffID digest.Digest
	file   *os.File
	temp   string
}

var errStalled = errors.New("somebody else has begun to make it and does not go on")

// Begin is called by who wants to make a layer. It waits for others who make the same. If one has finished it by then, the image
// is returned, and no Entry. It returns an error if nothing can be kept in the directory, and ctx's cause if ctx ends first.
func (s *Store) Begin(ctx context.Context, diffID digest.Digest) (*Entry, *layer.Image, error) {
	if err := diffID.Validate(); err != nil {
		return nil, nil, err
	}
	if s.options.LimitBytes <= 0 {
		return nil, nil, errors.New("nothing is to be kept")
	}
	if err := os.MkdirAll(s.options.Dir, 0o755); err != nil {
		return nil, nil, err
	}
	temp := filepath.Join(s.options.Dir, tempPrefix+diffID.Encoded())
	watch := newWatch()
	for {
		if im := s.Get(diffID); im != nil {
			return nil, im, nil
		}
		f, err := lockNew(temp)
		switch {
		case err != nil:
			return nil, nil, err
		case f != nil:
			// Whoever had it may have finished since we looked.
			if im := s.Get(diffID); im != nil {
				_ = os.Remove(temp) // an empty file
				return nil, im, f.Close()
			}
			return &Entry{store: s, diffID: diffID, file: f, temp: temp}, nil, nil
		}
		if err := watch.wait(ctx, temp); err != nil {
			return nil, nil, err
		}
	}
}

// lockNew makes the file path and locks it. It returns nil if somebody else has the lock.
func lockNew(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, f.Close()
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		// Between the two calls it may have got another name, or none.
		var named, opened unix.Stat_t
		if unix.Lstat(path, &named) == nil && unix.Fstat(int(f.Fd()), &opened) == nil && named.Ino == opened.Ino && named.Dev == opened.Dev {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// watch waits for somebody else's file as long as it grows.
type watch struct {
	size  int64
	since time.Time
}

func newWatch() *watch { return &watch{since: time.Now()} }

func (w *watch) wait(ctx context.Context, path string) error {
	const (
		pause    = 20 * time.Millisecond
		patience = 30 * time.Second
	)
	if fi, err := os.Stat(path); err != nil || fi.Size() != w.size {
		w.since = time.Now()
		if err == nil {
			w.size = fi.Size()
		}
	}
	if time.Since(w.since) > patience {
		return errStalled
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// File is where the image is to be written. It stays the entry's.
func (e *Entry) File() *os.File { return e.file }

// Drop gives up.
func (e *Entry) Drop() error { return errors.Join(os.Remove(e.temp), e.file.Close()) }

// Keep finishes the layer, whose image has been written, and returns it for use: with a file of its own that the caller
// closes, and that cannot be written. Others see it at once, or when it is on the disk; Close of the store waits for that.
func (e *Entry) Keep(im *layer.Image) (_ *layer.Image, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Drop())
		}
	}()
	fi, err := e.file.Stat()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(e.temp, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	now := time.Now().Truncate(time.Second) // file systems that know no nanoseconds keep it, too
	foot := &footer{DiffID: e.diffID, Image: fi.Size(), Time: now.UnixNano(), Boot: e.store.boot}
	if err := appendFooter(e.file, foot, im.Index); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s := e.store
	s.mu.Lock()
	s.added = true
	s.mu.Unlock()
	if !s.options.Durable {
		if err := e.show(now); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	} else {
		s.writing.Go(func() {
			if !e.sync() {
				err := e.Drop()
				s.mu.Lock()
				defer s.mu.Unlock()
				s.late = append(s.late, err)
				return
			}
			if err := e.show(now); err != nil {
				err = errors.Join(err, e.Drop())
				s.mu.Lock()
				defer s.mu.Unlock()
				s.late = append(s.late, err)
			}
		})
	}
	return &layer.Image{File: f, Index: im.Index}, nil
}

// show gives the layer its name.
func (e *Entry) show(now time.Time) error {
	err := os.Chtimes(e.temp, time.Now(), now)
	if err == nil {
		err = os.Rename(e.temp, e.store.path(e.diffID))
	}
	if err != nil {
		return fmt.Errorf("keep a prepared layer: %w", err)
	}
	return e.file.Close()
}

// sync brings the layer to the disk, in pieces, and says whether it got that far.
func (e *Entry) sync() bool {
	const piece = 64 << 20 // 64 MiB
	fi, err := e.file.Stat()
	if err != nil {
		return false
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for at := int64(0); at < fi.Size(); at += piece {
		select {
		case <-e.store.options.Stop:
			return false
		default:
		}
		if unix.SyncFileRange(int(e.file.Fd()), at, piece, all) != nil {
			break // not on this file system: all at once, then
		}
	}
	return e.file.Sync() == nil
}
