// Package child runs this program once more as a helper process of the builder, and carries requests, responses and
// descriptors between the two.
//
// A child has none of the builder's environment and descriptors, starts in the root directory and a session of its own,
// and is killed when the builder ends. The builder cannot be dumped or traced by it.
//
// A program that starts children must give way to them in main and in TestMain, before anything else.
package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

const (
	// Self is the program that children are.
	Self = "/proc/self/exe"
	// Socket is the descriptor of a child's end of the connection.
	Socket = 3
)

// Is says whether a process with these arguments (os.Args) is the child called name.
func Is(args []string, name string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == name
}

// CrashError is a child that ended although it should not have.
type CrashError struct {
	// Name is that of the child, for people: "the sentry".
	Name string
	// How is how the process ended: "exit status 2", "signal: killed".
	How string
	// Log is the beginning and the end of what the child wrote, at most 64 KiB.
	Log string
}

// Error tells how the child ended, the reason it gave, if any, on the first line, and what it wrote on further ones.
func (e *CrashError) Error() string {
	first := e.Name + " ended: " + e.How
	for line := range strings.Lines(e.Log) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			first += ": " + strings.TrimSpace(line)
			break
		}
	}
	return strings.TrimSpace(first + "\n" + e.Log)
}

// Error is an error that a child reported.
type Error struct{ Text string }

// Error is the child's text.
func (e *Error) Error() string { return e.Text }

// Command says how to start a child. Everything but Args may be left out.
type Command struct {
	// Title is what errors call the child: "the sentry".
	Title string
	// Args are the child's arguments; Args[0] is its name, see [Is].
	Args []string
	// Env is its whole environment.
	Env []string
	// Attr is how the process is made. Setsid and Pdeathsig are set here.
	Attr *syscall.SysProcAttr
	// OnThread is called on the thread that makes the process and is used for nothing else, neither before nor after.
	OnThread func()
	// Started is called with the process right after its start, before anybody can talk to it. An error ends it.
	Started func(pid int) error
}

// Process is the builder's end of a child that takes requests Q and answers with A.
// It may be used from many goroutines.
type Process[Q, A any] struct {
	title string
	wire  *wire
	log   *tail
	cmd   *exec.Cmd
	// gone is closed when the process has ended and been waited for; crash is set before that.
	gone  chan struct{}
	crash *CrashError

	mu      sync.Mutex // guards seq, waiting
	seq     uint64
	waiting map[uint64]chan *message[A]
}

// Start runs a child: the same program, with no descriptors but its socket. The caller closes it.
func Start[Q, A any](c *Command) (*Process[Q, A], error) {
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
		return nil, errors.Join(fmt.Errorf("make the pipe of a child's log: %w", err), w.close())
	}
	defer func() { _ = logsEnd.Close() }()
	p := &Process[Q, A]{title: c.Title, wire: w, log: &tail{}, gone: make(chan struct{}), waiting: map[uint64]chan *message[A]{}}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, w.close(), logs.Close())
	}
	defer func() { _ = null.Close() }()
	attr := syscall.SysProcAttr{}
	if c.Attr != nil {
		attr = *c.Attr
	}
	attr.Setsid, attr.Pdeathsig = true, syscall.SIGKILL
	env := c.Env
	if env == nil {
		env = []string{} // nil would be the builder's
	}
	p.cmd = &exec.Cmd{
		Path: Self, Args: c.Args, Env: env, Dir: "/",
		Stdin: null, Stdout: null, Stderr: logsEnd, ExtraFiles: []*os.File{theirs}, SysProcAttr: &attr,
	}
	if err := closeOnExec(); err != nil {
		return nil, errors.Join(err, w.close(), logs.Close())
	}
	started := make(chan error)
	go p.supervise(c, started, logs)
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Title, err), w.close(), logs.Close())
	}
	_ = chooseForOOM(p.cmd.Process.Pid) // where /proc cannot be written, the kernel chooses by size alone
	go p.dispatch()
	if c.Started == nil {
		return p, nil
	}
	if err := c.Started(p.cmd.Process.Pid); err != nil {
		p.Close()
		return nil, fmt.Errorf("start %s: %w", c.Title, err)
	}
	return p, nil
}

// supervise starts the process and waits for it, on a thread of its own that ends with it: the death signal of a child
// is bound to the thread that made it.
func (p *Process[Q, A]) supervise(c *Command, started chan<- error, logs *os.File) {
	runtime.LockOSThread() // and never unlocked
	if c.OnThread != nil {
		c.OnThread()
	}
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	collected := make(chan struct{})
	go func() {
		p.log.collect(logs)
		_ = logs.Close()
		close(collected)
	}()
	err = p.cmd.Wait()
	<-collected
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	p.crash = &CrashError{Name: p.title, How: how, Log: p.log.String()}
	close(p.gone)
}

// dispatch hands responses to those who wait for them until the connection ends, and then makes sure that so does the child.
func (p *Process[Q, A]) dispatch() {
	for {
		var res message[A]
		files, err := p.wire.receive(&res)
		CloseAll(files)
		if err != nil {
			break
		}
		p.mu.Lock()
		ch := p.waiting[res.Seq]
		delete(p.waiting, res.Seq)
		p.mu.Unlock()
		if ch != nil {
			ch <- &res
		}
	}
	_ = p.wire.close() // it is broken already
	<-p.gone
}

// Gone is closed when the process has ended and been waited for.
func (p *Process[Q, A]) Gone() <-chan struct{} { return p.gone }

// Signal sends a signal to the process.
func (p *Process[Q, A]) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Pid is the process ID, as the builder sees it.
func (p *Process[Q, A]) Pid() int { return p.cmd.Process.Pid }

// Close ends the child and waits for it. It may be called more than once.
func (p *Process[Q, A]) Close() {
	_ = p.wire.close() // the child ends when its socket does
	_ = p.cmd.Process.Kill()
	<-p.gone
}

// Call sends q and waits for its response. The descriptors stay the caller's. A child that ends is a [*CrashError],
// a request that it could not fulfil an [*Error], together with what it answered.
// If ctx ends first, Call returns its cause, and the response is dropped when it comes.
func (p *Process[Q, A]) Call(ctx context.Context, q Q, fds ...*os.File) (*A, error) {
	wait, err := p.Begin(q, fds...)
	if err != nil {
		return nil, err
	}
	return wait(ctx)
}

// Begin sends q and returns how to wait for its response, which must be called.
// What is sent after Begin has returned is seen by the child after q.
func (p *Process[Q, A]) Begin(q Q, fds ...*os.File) (func(context.Context) (*A, error), error) {
	ch := make(chan *message[A], 1)
	p.mu.Lock()
	p.seq++
	seq := p.seq
	p.waiting[seq] = ch
	p.mu.Unlock()
	forget := func() {
		p.mu.Lock()
		delete(p.waiting, seq)
		p.mu.Unlock()
	}
	nums := make([]int, len(fds))
	for i, f := range fds {
		nums[i] = int(f.Fd())
	}
	err := p.wire.send(&message[Q]{Seq: seq, Body: q}, nums...)
	runtime.KeepAlive(fds)
	if errors.Is(err, errConnLost) {
		p.Close() // without its socket it is of no use, if it is not gone anyway
	} else if err != nil {
		forget()
		return nil, err
	}
	return func(ctx context.Context) (*A, error) {
		defer forget()
		select {
		case res := <-ch:
			if res.Err != "" {
				return &res.Body, &Error{res.Err}
			}
			return &res.Body, nil
		case <-p.gone:
			return nil, p.crash
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}, nil
}
