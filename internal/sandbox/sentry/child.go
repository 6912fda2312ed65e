package sentry

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/cgroup"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

const (
	childName = "hako-sentry" // argv[0] of the child
	// childGC trades a little time for memory: the heap may grow by half between two collections.
	childGC = 50
	// childShare of the memory limit is what the heap may have before it is collected at any cost, in percent.
	childShare = 50

	exitProtocol = 3 // the builder's end of the socket broke in the middle of a message
)

// IsChild says whether a process with these arguments (os.Args) is a sentry and must call [ChildMain] and nothing else.
func IsChild(args []string) bool {
	return child.Is(args, childName)
}

// ChildMain serves the builder that started this process until it closes the connection. It returns the exit code.
// Every program that uses [New] must call it first thing in main, see [IsChild].
func ChildMain() int {
	debug.SetGCPercent(childGC)
	debug.SetMemoryLimit(cgroup.SoftLimit(childShare))
	debug.SetTraceback("all")
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: os.Stderr}})
	log.SetLevel(log.Warning)
	parent := os.Getppid() // which cannot be asked for later
	err := remote.Serve(func(options []byte, files []*os.File) (remote.Kernel, error) { return boot(parent, options, files) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProtocol
	}
	return 0
}

// boot makes the kernel that the engine asks for.
func boot(parent int, options []byte, files []*os.File) (*box, error) {
	var req bootRequest
	err := json.Unmarshal(options, &req)
	if err == nil && len(files) > 1 {
		err = errBadRequest
	}
	if err != nil {
		child.CloseAll(files)
		return nil, fmt.Errorf("boot: %w", err)
	}
	if req.Debug {
		log.SetLevel(log.Debug)
	}
	var data *os.File
	if len(files) == 1 {
		data = files[0]
	}
	b, err := newBox(&req, data)
	if err != nil {
		return nil, err
	}
	b.builder = parent
	return b, nil
}

var errBadRequest = errors.New("request makes no sense")

// Mount implements [remote.Kernel].
func (b *box) Mount(id string, image *os.File, patch *rootfs.Patch) error {
	return b.addLower(id, image, patch)
}

// Stop implements [remote.Kernel]. All that there is ends with the process.
func (b *box) Stop() error { return nil }

// NewStep implements [remote.Kernel].
func (b *box) NewStep(req *remote.Run) remote.Step { return &step{box: b, req: req} }

// step is a step in the child, from its start until it is released.
type step struct {
	box *box
	req *remote.Run

	mu      sync.Mutex // guards killed and process
	killed  bool
	process *kernel.ThreadGroup
	root    *stepRoot // owned by the goroutine that handles the step's current request
}

func (s *step) container() string { return "step" + strconv.FormatUint(s.req.Step, 10) }

// Run implements [remote.Step].
func (s *step) Run(stdio []*os.File) (remote.Exit, error) {
	if err := s.box.newProcess(s, stdio); err != nil {
		return remote.Exit{}, err
	}
	child.CloseAll(stdio)
	exit := s.wait()
	s.box.dropMounts(s.root) // only the upper is of further use
	return exit, nil
}

// wait starts the process and returns when it and all others of the step are gone: the kernel kills what is left
// of a PID namespace before it reports the end of its first process.
func (s *step) wait() remote.Exit {
	s.mu.Lock()
	if s.killed {
		s.killLocked()
	}
	s.box.kernel.StartProcess(s.process)
	s.mu.Unlock()
	s.process.WaitExited()
	ws := s.process.ExitStatus()
	if ws.Signaled() {
		return remote.Exit{Signal: int(ws.TerminationSignal())}
	}
	return remote.Exit{Code: int(ws.ExitStatus())}
}

// Kill implements [remote.Step].
func (s *step) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
	s.killLocked()
}

// killLocked sends SIGKILL to every process of s. That the step may be gone by now is not an error.
func (s *step) killLocked() {
	if s.process == nil {
		return
	}
	info := &linux.SignalInfo{Signo: int32(linux.SIGKILL)}
	if err := s.box.kernel.SendExternalSignalThreadGroup(s.process, info); err != nil {
		log.Debugf("kill %s: %v", s.container(), err)
	}
	if err := s.box.kernel.SendContainerSignal(s.container(), info); err != nil {
		log.Debugf("kill %s: %v", s.container(), err)
	}
}

// Changes implements [remote.Step].
func (s *step) Changes(write func(layer.Changes) error) error {
	if s.root == nil || !s.root.upper.Ok() {
		return fmt.Errorf("changes of %s: %w", s.container(), errBadRequest)
	}
	if err := s.box.prune(s.root); err != nil {
		return err
	}
	below, err := s.box.merged(s.root.lowers)
	if err != nil {
		return err
	}
	defer s.box.unmount(below)
	times := timeKeeper{box: s.box, upper: s.root.upper, below: below, started: s.root.started}
	if err := times.run(); err != nil {
		return err
	}
	upper := &upperTree{vfsTree: vfsTree{box: s.box, root: s.root.upper}}
	if err := write(layer.Diff(upper, &vfsTree{box: s.box, root: below})); err != nil {
		return err
	}
	s.root.pipes, s.root.sockets = upper.pipes, upper.sockets
	return nil
}

// SetTime implements [remote.Step]. A directory gets the time as its access time, too, see timeKeeper.
func (s *step) SetTime(paths []string, to time.Time) error {
	if s.root == nil || !s.root.upper.Ok() {
		return fmt.Errorf("set times of %s: %w", s.container(), errBadRequest)
	}
	v, b := s.box.kernel.VFS(), s.box
	ts := linux.StatxTimestamp{Sec: to.Unix(), Nsec: uint32(to.Nanosecond())} //nolint:gosec // below a second
	for _, p := range paths {
		st, err := v.StatAt(b.ctx, b.creds, at(s.root.upper, p), &vfs.StatOptions{Mask: linux.STATX_TYPE})
		if err != nil {
			return fmt.Errorf("look at /%s: %w", p, err)
		}
		set := vfs.SetStatOptions{Stat: linux.Statx{Mask: linux.STATX_MTIME, Mtime: ts}}
		if st.Mode&linux.S_IFMT == linux.S_IFDIR {
			set.Stat.Mask, set.Stat.Atime = linux.STATX_MTIME|linux.STATX_ATIME, ts
		}
		if err := v.SetStatAt(b.ctx, b.creds, at(s.root.upper, p), &set); err != nil {
			return fmt.Errorf("set the time of /%s: %w", p, err)
		}
	}
	return nil
}

// Keep implements [remote.Step].
func (s *step) Keep(id string) error {
	if s.root == nil || !s.root.upper.Ok() {
		return fmt.Errorf("keep %s: %w", s.container(), errBadRequest)
	}
	upper := s.root.upper
	if err := s.box.removeSockets(upper, s.root.sockets); err != nil {
		return err
	}
	s.root.upper = vfs.VirtualDentry{}
	s.box.keepLower(id, &lower{roots: []vfs.VirtualDentry{upper}, pipes: s.root.pipes})
	return nil
}

// Release implements [remote.Step].
func (s *step) Release() {
	if s.root != nil {
		s.box.dropRoot(s.root)
	}
}
