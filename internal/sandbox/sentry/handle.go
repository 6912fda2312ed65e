package sentry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const selfExe = "/proc/self/exe"

// CrashError is a sentry that ended although it should not have.
type CrashError struct {
	// How is how the process ended: "exit status 2", "signal: killed".
	How string
	// Log is the beginning and the end of what the sentry wrote, at most 64 KiB.
	Log string
}

// Error tells how the sentry ended, the reason it gave, if any, on the first line, and what it wrote on further ones.
func (e *CrashError) Error() string {
	first := "the sentry ended: " + e.How
	for line := range strings.Lines(e.Log) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			first += ": " + strings.TrimSpace(line)
			break
		}
	}
	return strings.TrimSpace(first + "\n" + e.Log)
}

// handle is the builder's end of one child.
type handle struct {
	wire *wire
	log  *tail
	cmd  *exec.Cmd
	// gone is closed when the process has ended and been waited for; crash is set before that.
	gone  chan struct{}
	crash *CrashError
	// report says how far the child is confined.
	report []string

	mu      sync.Mutex // guards seq, waiting, lowers
	seq     uint64
	waiting map[uint64]chan *response
	lowers  map[string]*mounting
}

// mounting is a lower that is mounted, or on the way.
type mounting struct {
	done chan struct{}
	err  error // set before done is closed
}

// start runs a child: the same program, with no environment, no descriptors but its socket, and a session of its own.
func start() (*handle, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	w, err := newWire(ours)
	if err != nil {
		return nil, err
	}
	w.most = maxResponse
	logs, logsEnd, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the pipe of the sentry's log: %w", err), w.close())
	}
	defer func() { _ = logsEnd.Close() }()
	h := &handle{wire: w, log: &tail{}, gone: make(chan struct{}), waiting: map[uint64]chan *response{}, lowers: map[string]*mounting{}}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, w.close(), logs.Close())
	}
	defer func() { _ = null.Close() }()
	h.cmd = &exec.Cmd{
		Path: selfExe, Args: []string{childName}, Env: childEnv(), Dir: "/",
		Stdin: null, Stdout: null, Stderr: logsEnd, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := closeOnExec(); err != nil {
		return nil, errors.Join(err, w.close(), logs.Close())
	}
	started := make(chan error)
	go h.supervise(started, logs)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start the sentry: %w", err), w.close(), logs.Close())
	}
	go h.dispatch()
	return h, nil
}

// childEnv is the child's whole environment. The one variable matters only to a program built with cgo, a test for one:
// restartable sequences, which glibc registers for each thread, live in memory that systrap's stub processes unmap.
func childEnv() []string { return []string{"GLIBC_TUNABLES=glibc.pthread.rseq=0"} }

// supervise starts the process and waits for it, on a thread of its own that ends with it: the death signal of a child
// is bound to the thread that made it, and this thread is confined as the child is to be.
func (h *handle) supervise(started chan<- error, logs *os.File) {
	runtime.LockOSThread() // and never unlocked
	h.report = confineThread()
	err := h.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	collected := make(chan struct{})
	go func() {
		h.log.collect(logs)
		_ = logs.Close()
		close(collected)
	}()
	err = h.cmd.Wait()
	<-collected
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	h.crash = &CrashError{How: how, Log: h.log.String()}
	close(h.gone)
}

// dispatch hands responses to those who wait for them until the connection ends, and then makes sure that so does the child.
func (h *handle) dispatch() {
	for {
		var res response
		files, err := h.wire.receive(&res)
		closeAll(files)
		if err != nil {
			break
		}
		h.mu.Lock()
		ch := h.waiting[res.Seq]
		delete(h.waiting, res.Seq)
		h.mu.Unlock()
		if ch != nil {
			ch <- &res
		}
	}
	_ = h.wire.close() // it is broken already
	<-h.gone
}

// close ends the child and waits for it. It may be called more than once.
func (h *handle) close() {
	_ = h.wire.close() // the child ends when its socket does
	_ = h.cmd.Process.Kill()
	<-h.gone
}

// call sends req and waits for its response. The descriptors stay the caller's. A child that ends is a [CrashError].
// If ctx ends first, call returns its cause, and the response is dropped when it comes.
func (h *handle) call(ctx context.Context, req *request, fds ...*os.File) (*response, error) {
	wait, err := h.begin(req, fds...)
	if err != nil {
		return nil, err
	}
	return wait(ctx)
}

// begin sends req and returns how to wait for its response, which must be called.
// What is sent after begin has returned is seen by the child after req.
func (h *handle) begin(req *request, fds ...*os.File) (func(context.Context) (*response, error), error) {
	ch := make(chan *response, 1)
	h.mu.Lock()
	h.seq++
	req.Seq = h.seq
	h.waiting[req.Seq] = ch
	h.mu.Unlock()
	forget := func() {
		h.mu.Lock()
		delete(h.waiting, req.Seq)
		h.mu.Unlock()
	}
	nums := make([]int, len(fds))
	for i, f := range fds {
		nums[i] = int(f.Fd())
	}
	err := h.wire.send(req, nums...)
	runtime.KeepAlive(fds)
	if errors.Is(err, errConnLost) {
		h.close() // without its socket it is of no use, if it is not gone anyway
	} else if err != nil {
		forget()
		return nil, err
	}
	return func(ctx context.Context) (*response, error) {
		defer forget()
		select {
		case res := <-ch:
			if res.Err != "" {
				return res, &childError{res.Err, res.Missing}
			}
			return res, nil
		case <-h.gone:
			return nil, h.crash
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}, nil
}

// childError is an error that the child reported.
type childError struct {
	text    string
	missing bool
}

func (e *childError) Error() string { return e.text }

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the sentry's socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "sentry"), os.NewFile(uintptr(fds[1]), "builder"), nil
}
