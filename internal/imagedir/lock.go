package imagedir

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// lock keeps others from storing an image at the same time. It goes with the process, however that ends.
type lock struct {
	file *os.File // nil on a file system without locks
	// suffix makes temporary names unique where there are no locks.
	suffix string
}

func (l *lock) unlock() {
	if l.file != nil {
		_ = l.file.Close() // nothing was written
	}
}

// lock waits until nobody else stores the image, at most until ctx ends.
func (d *Dir) lock(ctx context.Context, sum digest.Digest) (*lock, error) {
	d.sweep()
	dir := filepath.Join(d.options.Path, locksDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, sum.String()+".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	const pause = 50 * time.Millisecond
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return &lock{file: f}, nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			// Two who store the same image then do it twice, each under a name of its own.
			return &lock{suffix: "-" + rand.Text()}, f.Close()
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(pause):
		}
	}
}

// sweep removes what killed warmers left: temporary files whose lock can be taken.
func (d *Dir) sweep() {
	all, err := os.ReadDir(d.options.Path)
	if err != nil {
		return
	}
	for _, e := range all {
		name, ok := strings.CutPrefix(e.Name(), tempPrefix)
		if !ok {
			continue
		}
		f, err := os.OpenFile(filepath.Join(d.options.Path, locksDir, name+".lock"), os.O_RDWR|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue // made without locks: nobody knows whose it is
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Join(d.options.Path, e.Name())) // waste, not harm: the next one tries again
		}
		_ = f.Close() // nothing was written
	}
}
