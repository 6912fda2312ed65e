package native

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/layer"
	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

// step is one step in the child. It implements [remote.Step].
type step struct {
	box *box
	req *remote.Run
	// name tells the directories of this step from those of others.
	name string
	// upper is the directory that holds what the step wrote, or empty.
	upper string
	// lowers are the directories that the step stands on, top first.
	lowers []string
	// stubs are the mount points that were made for it.
	stubs []stub
	// sockets are those in the upper, once its changes were read.
	sockets []socketLeft
	// places are directories that go when the step has ended.
	places []string

	mu     sync.Mutex // guards killed and pid
	killed bool
	pid    int // of the first process, while there is one that has not been waited for
}

var _ remote.Step = (*step)(nil)

// NewStep implements [remote.Kernel].
func (b *box) NewStep(req *remote.Run) remote.Step {
	return &step{box: b, req: req, name: b.next()}
}

// Run implements [remote.Step].
func (s *step) Run(stdio []*os.File) (exit remote.Exit, err error) {
	end, err := s.box.begin(s)
	if err != nil {
		return exit, err
	}
	defer end()
	if s.lowers, err = s.box.stack(s.req.Lowers); err != nil {
		return exit, err
	}
	if err := s.box.readyCaches(s.req.Mounts); err != nil {
		return exit, err
	}
	if err := unix.Mkdir(s.files(), 0o700); err != nil {
		return exit, fmt.Errorf("make a directory for files: %w", err)
	}
	s.places = append(s.places, s.files())
	listeners, err := s.listen()
	if err != nil {
		return exit, errors.Join(err, s.removePlaces())
	}
	defer closeListeners(listeners)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread gets namespaces of its own, and ends with this function because it is never unlocked.
		runtime.LockOSThread()
		exit, err = s.onThread(stdio)
	}()
	<-done
	if err = errors.Join(err, s.removePlaces()); err != nil || exit != (remote.Exit{}) {
		return exit, err
	}
	return exit, s.removeStubs()
}

// files is the directory for the step's read-only files.
func (s *step) files() string { return dirFiles + "/" + s.name }

// onThread makes the step's world around the calling thread, runs the step in it, and leaves it again.
func (s *step) onThread(stdio []*os.File) (remote.Exit, error) {
	flags := unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	if s.req.NoNetwork {
		flags |= unix.CLONE_NEWNET
	}
	if err := unix.Unshare(flags); err != nil {
		return remote.Exit{}, fmt.Errorf("make namespaces: %w", err)
	}
	if s.req.NoNetwork {
		if err := raiseLoopback(); err != nil {
			return remote.Exit{}, err
		}
	}
	exit, err := s.inside(stdio)
	// Back where we came from: nothing else holds the step's mounts, so its overlay is gone when this returns.
	if serr := unix.Setns(s.box.mounts, unix.CLONE_NEWNS); serr != nil {
		err = errors.Join(err, fmt.Errorf("leave the step's mounts: %w", serr))
	}
	return exit, err
}

// inside readies the namespaces of the calling thread and runs the step in them.
func (s *step) inside(stdio []*os.File) (remote.Exit, error) {
	if err := unix.Sethostname([]byte(s.req.Hostname)); err != nil {
		return remote.Exit{}, fmt.Errorf("set the host name: %w", err)
	}
	r, err := s.newRoot()
	if err != nil {
		return remote.Exit{}, err
	}
	defer r.close()
	if err := r.furnish(); err != nil {
		return remote.Exit{}, err
	}
	return s.execute(r, stdio)
}

// execute runs the step's first process to its end.
func (s *step) execute(r *root, stdio []*os.File) (exit remote.Exit, err error) {
	var w *watcher
	if s.box.options.UserNamespace {
		if w, err = s.watch(r); err != nil {
			return exit, err
		}
		defer func() {
			if werr := w.close(); werr != nil {
				exit, err = remote.Exit{}, werr
			}
		}()
	}
	p, err := s.program(r, w, stdio)
	if err != nil {
		return exit, err
	}
	err = p.start(unix.CLONE_NEWPID, func(pid int) {
		child.CloseAll(stdio) // the builder sees their end when the step's processes are gone
		if w != nil {
			w.start()
		}
		s.running(pid)
	})
	exit = s.wait()
	return exit, p.explain(err)
}

// explain turns a failure of the first process before it was the step's into what it means.
func (p *stepProgram) explain(err error) error {
	var failed *callError
	switch {
	case !errors.As(err, &failed):
		return err
	case failed.what == whatExec:
		return &remote.StartError{Reason: fmt.Sprintf("exec %s: %v", p.file, failed.errno)}
	case failed.what == whatFilter && failed.errno == unix.EBUSY:
		return &sandbox.UnsupportedError{What: "somebody else watches the system calls of this container: " + failed.Error()}
	}
	return err
}

// raiseLoopback makes the one interface of the calling thread's new network usable.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the step's network: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name lo: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
	if errors.Is(err, unix.EPERM) {
		return &sandbox.UnsupportedError{What: "a network of the step's own cannot be used without CAP_NET_ADMIN"}
	}
	if err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	return nil
}

// running notes the first process, and kills it if that was asked for before it was there.
func (s *step) running(pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid = pid
	if s.killed {
		_ = unix.Kill(pid, unix.SIGKILL) // it is there, since nobody waited for it
	}
}

// Kill implements [remote.Step].
func (s *step) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
	if s.pid != 0 {
		_ = unix.Kill(s.pid, unix.SIGKILL) // it is there, since nobody waited for it
	}
}

// wait returns when the first process has ended. The kernel kills what is left of its PID namespace before.
func (s *step) wait() remote.Exit {
	s.mu.Lock()
	pid := s.pid
	s.mu.Unlock()
	if pid == 0 {
		return remote.Exit{}
	}
	// It must not be waited for before everybody knows that it cannot be killed any more.
	var info unix.Siginfo
	for unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	s.mu.Lock()
	s.pid = 0
	s.mu.Unlock()
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if err != syscall.EINTR {
			break
		}
	}
	if ws.Signaled() {
		return remote.Exit{Signal: int(ws.Signal())}
	}
	return remote.Exit{Code: ws.ExitStatus()}
}

// Changes implements [remote.Step].
func (s *step) Changes(write func(layer.Changes) error) error {
	if s.upper == "" {
		return fmt.Errorf("changes of %s: %w", s.req.Name, errBadRequest)
	}
	upper, err := openDirTree(s.upper)
	if err != nil {
		return err
	}
	defer upper.close()
	var sockets []string
	upper.opaque = s.box.overlay.opaque
	upper.socket = func(p string) { sockets = append(sockets, p) }
	lower := s.box.lazyView(s.lowers)
	defer lower.close()
	if err := write(layer.Diff(upper, lower)); err != nil {
		return err
	}
	s.sockets = nil
	for _, p := range sockets {
		_, err := lower.Lstat(p)
		if err != nil && !isNotExist(err) {
			return err
		}
		s.sockets = append(s.sockets, socketLeft{path: p, hides: err == nil})
	}
	return nil
}

// socketLeft is a socket that a step left behind.
type socketLeft struct {
	path string
	// hides says that there is something below.
	hides bool
}

// removeSockets takes the sockets out of an upper that will be a lower: no image can hold them. Times stay.
func (s *step) removeSockets() error {
	for _, left := range s.sockets {
		p := path.Join(s.upper, left.path)
		var parent unix.Stat_t
		err := unix.Lstat(path.Dir(p), &parent)
		if err == nil {
			err = unix.Unlink(p)
		}
		if err == nil && left.hides {
			err = unix.Mknod(p, unix.S_IFCHR, 0)
		}
		if err != nil {
			return fmt.Errorf("remove socket /%s: %w", left.path, err)
		}
		if err := setTimes(unix.AT_FDCWD, path.Dir(p), &parent); err != nil {
			return err
		}
	}
	return nil
}

// SetTime implements [remote.Step].
func (s *step) SetTime(paths []string, to time.Time) error {
	if s.upper == "" {
		return fmt.Errorf("set times of %s: %w", s.req.Name, errBadRequest)
	}
	upper, err := openDirTree(s.upper)
	if err != nil {
		return err
	}
	defer upper.close()
	for _, p := range paths {
		if err := upper.setTime(p, to); err != nil {
			return err
		}
	}
	return nil
}

// Keep implements [remote.Step].
func (s *step) Keep(id string) error {
	if s.upper == "" {
		return fmt.Errorf("keep %s: %w", s.req.Name, errBadRequest)
	}
	if err := s.removeSockets(); err != nil {
		return err
	}
	if s.box.lowers.add(id, &lower{paths: []string{s.upper}}) {
		s.upper = ""
	}
	return nil
}

// Release implements [remote.Step].
func (s *step) Release() {
	if s.upper != "" {
		_ = removeTree(s.upper) // what is left goes with the work directory
		s.upper = ""
	}
}
