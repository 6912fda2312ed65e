package sentry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/layer"
)

const (
	childName = "hako-sentry" // argv[0] of the child
	childSock = 3             // the only descriptor it gets besides the standard ones
	// childGC trades a little time for memory: the heap may grow by half between two collections.
	childGC = 50

	exitProtocol = 3 // the builder's end of the socket broke in the middle of a message
)

// IsChild says whether a process with these arguments (os.Args) is a sentry and must call [ChildMain] and nothing else.
func IsChild(args []string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == childName
}

// ChildMain serves the builder that started this process until it closes the connection. It returns the exit code.
// Every program that uses [New] must call it first thing in main, see [IsChild].
func ChildMain() int {
	debug.SetGCPercent(childGC)
	debug.SetTraceback("all")
	log.SetTarget(log.GoogleEmitter{Writer: &log.Writer{Next: os.Stderr}})
	log.SetLevel(log.Warning)
	unix.CloseOnExec(childSock)
	w, err := newWire(os.NewFile(childSock, "builder"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProtocol
	}
	c := child{wire: w, parent: os.Getppid(), steps: map[uint64]*step{}}
	err = c.serve()
	if errors.Is(err, io.EOF) {
		return 0
	}
	fmt.Fprintln(os.Stderr, err)
	return exitProtocol
}

// child is the serving side of the protocol.
type child struct {
	wire *wire
	// parent is the builder's process ID, which cannot be asked for later.
	parent int
	box    *box // set by the first request

	mu    sync.Mutex // guards steps
	steps map[uint64]*step
}

// step is a step in the child, from its start until it is released.
type step struct {
	req *runRequest

	mu      sync.Mutex // guards killed and process
	killed  bool
	process *kernel.ThreadGroup
	root    *stepRoot // owned by the goroutine that handles the step's current request
}

func (s *step) container() string { return "step" + strconv.FormatUint(s.req.Step, 10) }

// serve reads requests until the connection ends. Each is handled in a goroutine of its own,
// which nobody waits for: the process ends when serve returns.
func (c *child) serve() error {
	for {
		var req request
		files, err := c.wire.receive(&req)
		if err != nil {
			return err
		}
		if req.Run != nil {
			// Before the next request is read, which may be its kill.
			c.mu.Lock()
			c.steps[req.Run.Step] = &step{req: req.Run}
			c.mu.Unlock()
		}
		if req.Boot != nil {
			c.answer(&req, files) // nothing else makes sense before
			continue
		}
		go c.answer(&req, files)
	}
}

func (c *child) answer(req *request, files []*os.File) {
	res := response{Seq: req.Seq}
	err := c.handle(req, files, &res)
	var start *startError
	switch {
	case errors.As(err, &start):
		res.Exit.Start = start.reason
	case err != nil:
		res.Err = err.Error()
		res.Missing = errors.Is(err, errNotMounted)
	}
	if err := c.wire.send(&res); err != nil {
		log.Warningf("answer: %v", err)
	}
}

var errBadRequest = errors.New("request makes no sense")

// handle does what req asks. It owns files.
func (c *child) handle(req *request, files []*os.File, res *response) error {
	if req.Boot != nil {
		return c.boot(req.Boot, files)
	}
	if c.box == nil {
		closeAll(files)
		return fmt.Errorf("before boot: %w", errBadRequest)
	}
	switch {
	case req.Mount != nil && len(files) == 1:
		return c.box.addLower(req.Mount.ID, files[0], &req.Mount.Patch)
	case req.Run != nil:
		defer closeAll(files)
		return c.run(req.Run.Step, files, res)
	case req.Changes != nil && len(files) == 1:
		return c.changes(req.Changes.Step, files[0])
	}
	closeAll(files)
	switch {
	case req.Kill != nil:
		c.kill(req.Kill.Step)
		return nil
	case req.Keep != nil:
		return c.keep(req.Keep)
	case req.Release != nil:
		c.release(req.Release.Step)
		return nil
	case req.Check:
		c.check(res)
		return nil
	}
	return errBadRequest
}

func (c *child) boot(req *bootRequest, files []*os.File) error {
	if c.box != nil || len(files) > 1 {
		closeAll(files)
		return fmt.Errorf("boot: %w", errBadRequest)
	}
	if req.Debug {
		log.SetLevel(log.Debug)
	}
	var data *os.File
	if len(files) == 1 {
		data = files[0]
	}
	b, err := newBox(req, data)
	if err != nil {
		return err
	}
	c.box = b
	return nil
}

func (c *child) step(id uint64) (*step, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.steps[id]
	if !ok {
		return nil, fmt.Errorf("step %d: %w", id, errBadRequest)
	}
	return s, nil
}

// run executes a step to its end. Unless it succeeds, nothing of it stays.
func (c *child) run(id uint64, stdio []*os.File, res *response) error {
	s, err := c.step(id)
	if err != nil {
		return err
	}
	want := 2
	if s.req.Stdin {
		want = 3
	}
	if len(stdio) != want {
		return fmt.Errorf("run with %d descriptors: %w", len(stdio), errBadRequest)
	}
	if err = c.box.newProcess(s, stdio); err == nil {
		closeAll(stdio)
		res.Exit = c.wait(s)
	}
	if err != nil || res.Exit != (exitStatus{}) {
		c.release(id)
		return err
	}
	c.box.dropMounts(s.root) // only the upper is of further use
	return nil
}

// wait starts the process and returns when it and all others of the step are gone: the kernel kills what is left
// of a PID namespace before it reports the end of its first process.
func (c *child) wait(s *step) exitStatus {
	s.mu.Lock()
	if s.killed {
		c.killLocked(s)
	}
	c.box.kernel.StartProcess(s.process)
	s.mu.Unlock()
	s.process.WaitExited()
	ws := s.process.ExitStatus()
	if ws.Signaled() {
		return exitStatus{Signal: int(ws.TerminationSignal())}
	}
	return exitStatus{Code: int(ws.ExitStatus())}
}

// kill ends a step, now or as soon as it starts. One that is over needs no killing.
func (c *child) kill(id uint64) {
	s, err := c.step(id)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed = true
	c.killLocked(s)
}

// killLocked sends SIGKILL to every process of s. That the step may be gone by now is not an error.
func (c *child) killLocked(s *step) {
	if s.process == nil {
		return
	}
	info := &linux.SignalInfo{Signo: int32(linux.SIGKILL)}
	if err := c.box.kernel.SendExternalSignalThreadGroup(s.process, info); err != nil {
		log.Debugf("kill %s: %v", s.container(), err)
	}
	if err := c.box.kernel.SendContainerSignal(s.container(), info); err != nil {
		log.Debugf("kill %s: %v", s.container(), err)
	}
}

// changes writes what the step changed to w, which it takes over.
func (c *child) changes(id uint64, w *os.File) (err error) {
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	s, err := c.step(id)
	if err != nil {
		return err
	}
	if s.root == nil || !s.root.upper.Ok() {
		return fmt.Errorf("changes of %s: %w", s.container(), errBadRequest)
	}
	below, err := c.box.merged(s.root.lowers)
	if err != nil {
		return err
	}
	defer c.box.unmount(below)
	times := timeKeeper{box: c.box, upper: s.root.upper, below: below, started: s.root.started}
	if err := times.run(); err != nil {
		return err
	}
	upper := &upperTree{vfsTree: vfsTree{box: c.box, root: s.root.upper}}
	diff := layer.Diff(upper, &vfsTree{box: c.box, root: below})
	if err := layer.Encode(context.Background(), w, diff); err != nil {
		return fmt.Errorf("send the changes of %s: %w", s.container(), err)
	}
	s.root.pipes, s.root.sockets = upper.pipes, upper.sockets
	return nil
}

// keep turns the upper of a step into a lower.
func (c *child) keep(req *keepRequest) error {
	s, err := c.step(req.Step)
	if err != nil {
		return err
	}
	if s.root == nil || !s.root.upper.Ok() {
		return fmt.Errorf("keep %s: %w", s.container(), errBadRequest)
	}
	upper := s.root.upper
	if err := c.box.removeSockets(upper, s.root.sockets); err != nil {
		return err
	}
	s.root.upper = vfs.VirtualDentry{}
	c.box.keepLower(req.ID, &lower{roots: []vfs.VirtualDentry{upper}, pipes: s.root.pipes})
	return nil
}

// release forgets a step and what keep did not take out of it.
func (c *child) release(id uint64) {
	c.mu.Lock()
	s, ok := c.steps[id]
	delete(c.steps, id)
	c.mu.Unlock()
	if ok && s.root != nil {
		c.box.dropRoot(s.root)
	}
}
