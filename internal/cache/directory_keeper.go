package cache

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// A directory is pruned without locks, since those of network file systems are slow, missing, or held by nobody alive.
// What takes their place is the time of a file's last change, which for blobs and records means their last use:
//
//   - whoever finds a record, or writes one, touches it and its blobs, and does so again every few minutes as long as it has
//     the store open. Nothing stays behind when it is killed: times grow old by themselves. They are set by the server of the
//     volume, not by the clock of a machine, and ages are taken by the same clock.
//   - whoever prunes spares what was used during the grace time, which is several times as long. It removes a record before
//     the blobs that only this record named, and moves a blob out of sight before it looks at its time for the last
//     time: one that was touched after all comes back.
//   - whoever writes a record looks once more, after that, whether the blobs are there.

const (
	// beat is how often a store that is open says that it still needs what it found; several of them fit into Grace.
	beat = 5 * time.Minute
	// fresh is the age up to which a time of use is good enough, so that many builds at once do not all write it.
	fresh = time.Minute
)

var (
	_ Keeper = (*Directory)(nil)
	_ Sized  = (*Directory)(nil)
)

// uses are the files that this process needs.
type uses struct {
	mu      sync.Mutex // guards the rest
	paths   map[string]struct{}
	stop    chan struct{} // closed by end; nil until the first use
	stopped chan struct{}
}

// note says now and from now on that files are used. Where nothing can be written, nothing is pruned from here either.
func (u *uses) note(paths ...string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, p := range paths {
		if _, ok := u.paths[p]; !ok {
			touch(p, fresh)
		}
		if u.paths == nil {
			u.paths = map[string]struct{}{}
		}
		u.paths[p] = struct{}{}
	}
	if u.stop == nil {
		u.stop, u.stopped = make(chan struct{}), make(chan struct{})
		go u.again(u.stop, u.stopped)
	}
}

// again touches the files until stop is closed.
func (u *uses) again(stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		u.mu.Lock()
		for p := range u.paths {
			touch(p, fresh)
		}
		u.mu.Unlock()
	}
}

// end lets go of everything.
func (u *uses) end() {
	u.mu.Lock()
	stop, stopped := u.stop, u.stopped
	u.stop, u.paths = nil, nil
	u.mu.Unlock()
	if stop != nil {
		close(stop)
		<-stopped
	}
}

// touch sets the time of a file to now by the clock of its file system, unless it is not older than age.
func touch(p string, age time.Duration) {
	if st, err := os.Lstat(p); err != nil || age > 0 && time.Since(st.ModTime()).Abs() < age {
		return
	}
	// It may be on a volume that cannot be written, or gone.
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, p, nil, unix.AT_SYMLINK_NOFOLLOW)
}

// use says that a record and its blobs are needed.
func (d *Directory) use(key Key, rec *Record) {
	paths := []string{d.record(key)}
	for _, b := range rec.blobs() {
		paths = append(paths, d.blobPath(b.Digest))
	}
	d.uses.note(paths...)
}

func (d *Directory) blobDir() string { return filepath.Join(d.path, "sha256") }
func (d *Directory) blobPath(id digest.Digest) string {
	return filepath.Join(d.blobDir(), id.Encoded())
}
func (d *Directory) unfinishedDir() string           { return filepath.Join(d.path, "new") }
func (d *Directory) recordDir() string               { return filepath.Join(d.path, "records") }
func (d *Directory) now() (now time.Time, err error) { return clockOf(d.unfinishedDir()) }

// clockOf is the time by the clock of a directory's file system.
func clockOf(dir string) (time.Time, error) {
	f, err := os.CreateTemp(dir, ".now-*")
	if err != nil {
		return time.Time{}, fmt.Errorf("ask the volume for the time: %w", err)
	}
	st, err := f.Stat()
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return time.Time{}, fmt.Errorf("ask the volume for the time: %w", err)
	}
	return st.ModTime(), nil
}

// files calls fn for each regular file of a directory. Files that go meanwhile are left out.
func files(ctx context.Context, dir string, fn func(name string, st fs.FileInfo) error) error {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range all {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		if err == nil {
			err = fn(e.Name(), st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Size implements [Sized].
func (d *Directory) Size(ctx context.Context) (int64, error) {
	var total int64
	for _, dir := range []string{d.blobDir(), d.unfinishedDir()} {
		err := files(ctx, dir, func(_ string, st fs.FileInfo) error {
			total += st.Size()
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("measure the cache: %w", err)
		}
	}
	return total, nil
}

// List implements [Keeper].
func (d *Directory) List(ctx context.Context) (*Inventory, error) {
	now, err := d.now()
	if err != nil {
		return nil, err
	}
	out := &Inventory{Now: now}
	if out.Entries, err = d.entries(ctx); err != nil {
		return nil, err
	}
	named := named(out.Entries)
	err = files(ctx, d.blobDir(), func(name string, st fs.FileInfo) error {
		if !named[name] {
			out.Loose = append(out.Loose, Loose{Name: filepath.Join("sha256", name), Size: st.Size(), Used: st.ModTime()})
		}
		return nil
	})
	for _, dir := range []string{"new", "records"} {
		err = errors.Join(err, files(ctx, filepath.Join(d.path, dir), func(name string, st fs.FileInfo) error {
			if dir == "new" || strings.HasPrefix(name, ".") {
				out.Loose = append(out.Loose, Loose{Name: filepath.Join(dir, name), Size: st.Size(), Used: st.ModTime()})
			}
			return nil
		}))
	}
	return out, err
}

// named are the names of the blobs that entries need.
func named(entries []Entry) map[string]bool {
	out := map[string]bool{}
	for i := range entries {
		if entries[i].Record == nil {
			continue
		}
		for _, b := range entries[i].Record.blobs() {
			out[b.Digest.Encoded()] = true
		}
	}
	return out
}

// entries reads all records; files with the same text are one.
func (d *Directory) entries(ctx context.Context) ([]Entry, error) {
	found := map[digest.Digest]*Entry{}
	err := files(ctx, d.recordDir(), func(name string, st fs.FileInfo) error {
		key := Key(strings.TrimSuffix(name, ".json"))
		if key.Validate() != nil {
			return nil
		}
		text, err := readRecord(filepath.Join(d.recordDir(), name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		id := digest.FromBytes(text)
		e := found[id]
		if e == nil {
			e = &Entry{}
			if rec := (&Record{}); json.Unmarshal(text, rec) == nil {
				e.Record, e.Size = rec, rec.size()
			}
			found[id] = e
		}
		e.Keys = append(e.Keys, key)
		if st.ModTime().After(e.Used) {
			e.Used = st.ModTime()
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the records: %w", err)
	}
	var out []Entry
	for _, e := range found {
		out = append(out, *e)
	}
	sortEntries(out)
	return out, nil
}

// Remove implements [Keeper].
func (d *Directory) Remove(ctx context.Context, what *Inventory) (*Inventory, error) {
	gone := &Inventory{Now: what.Now}
	for i := range what.Entries {
		if ctx.Err() != nil {
			return gone, context.Cause(ctx)
		}
		e := &what.Entries[i]
		ok, err := d.removeRecord(e)
		if err != nil {
			return gone, err
		}
		if ok {
			gone.Entries = append(gone.Entries, *e)
		}
	}
	// What is there now counts: records may have come since, and need blobs that others needed before.
	left, err := d.entries(ctx)
	if err != nil {
		return gone, err
	}
	needed := named(left)
	for name := range named(gone.Entries) {
		if !needed[name] {
			if _, err := d.removeBlob(filepath.Join("sha256", name), what); err != nil {
				return gone, err
			}
		}
	}
	for _, l := range what.Loose {
		if needed[filepath.Base(l.Name)] {
			continue
		}
		ok, err := d.removeBlob(l.Name, what)
		if err != nil {
			return gone, err
		}
		if ok {
			gone.Loose = append(gone.Loose, l)
		}
	}
	return gone, nil
}

// removeRecord removes a record under all its names unless it was used since e was made.
func (d *Directory) removeRecord(e *Entry) (bool, error) {
	for _, k := range e.Keys {
		if st, err := os.Lstat(d.record(k)); err == nil && st.ModTime().After(e.Used) {
			return false, nil
		}
	}
	for _, k := range e.Keys {
		if err := os.Remove(d.record(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return true, nil
}

// removeBlob removes a file of the store unless it is spared.
func (d *Directory) removeBlob(name string, what *Inventory) (bool, error) {
	from := filepath.Join(d.path, name)
	used := func(p string) bool {
		st, err := os.Lstat(p)
		return err == nil && (st.ModTime().After(what.Now) || what.Now.Sub(st.ModTime()) < what.Spare)
	}
	if used(from) {
		return false, nil
	}
	aside := filepath.Join(d.unfinishedDir(), ".gone-"+rand.Text())
	if err := os.Rename(from, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil // another one was faster
		}
		return false, err
	}
	if used(aside) {
		err := os.Rename(aside, from)
		return false, err
	}
	return true, os.Remove(aside)
}
