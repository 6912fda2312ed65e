package submit

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hako/internal/cluster"
	"hako/internal/event"
	"hako/internal/ui"
	"hako/internal/web"
)

// podLog is the log of a pod while it is read, over as many connections as it takes. Each line comes with its time, and a log can
// be asked for from a second on: so the place is a time and how many lines had it, and no line is lost or comes twice.
type podLog struct {
	pod  string
	last time.Time
	same int
	done chan struct{}

	mu      sync.Mutex // guards what follows
	over    bool       // the container has ended
	failure error
}

// failed is why the build failed, as its last line says; nil if it has not said so.
func (l *podLog) failed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

func (l *podLog) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// read begins to read the log of a pod whose container has started, and notes when it has ended.
func (f *follower) read(ctx context.Context, p *corev1.Pod) {
	s := status(p)
	if s == nil || s.State.Waiting != nil || s.State.Running == nil && s.State.Terminated == nil {
		return
	}
	l := f.logs[p.Name]
	if l == nil {
		l = &podLog{pod: p.Name, done: make(chan struct{})}
		f.logs[p.Name] = l
		f.say("the pod " + p.Name + " runs on node " + p.Spec.NodeName)
		l.over = s.State.Terminated != nil
		go func() {
			defer close(l.done)
			f.readAll(ctx, l)
		}()
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = s.State.Terminated != nil
}

// drain waits for the last lines of all pods.
func (f *follower) drain(ctx context.Context) {
	timeout := time.NewTimer(logPatience)
	defer timeout.Stop()
	for _, l := range f.logs {
		l.mu.Lock()
		l.over = true
		l.mu.Unlock()
		select {
		case <-l.done:
		case <-ctx.Done():
			return
		case <-timeout.C:
			f.warn("the end of the log of pod " + l.pod + " cannot be read")
			return
		}
	}
}

// readAll reads a log until its container has ended and all of it was read.
func (f *follower) readAll(ctx context.Context, l *podLog) {
	for ctx.Err() == nil {
		over := l.isOver()
		err := f.readOnce(ctx, l, !over)
		switch {
		case err == nil && over, cluster.IsNotFound(err):
			return
		case cluster.IsForbidden(err):
			f.once("the log cannot be shown: " + oneLine(err))
			return
		}
		_ = web.Sleep(ctx, interval) // the loop looks at ctx
	}
}

// readOnce reads from where l is on over one connection.
func (f *follower) readOnce(ctx context.Context, l *podLog, following bool) error {
	r, err := f.env.Cluster.Logs(ctx, l.pod, Container, cluster.LogOptions{Since: l.last, Follow: following})
	if err != nil {
		return err
	}
	defer r.Close() // read only: nothing to lose
	from, skip := l.last, l.same
	in := bufio.NewReader(r)
	for {
		line, cut, err := readLine(in)
		if cut {
			f.once("a line in the log of pod " + l.pod + " is too long, and is cut")
		}
		if err == io.EOF && (len(line) == 0 || following) {
			return nil // a line that is cut comes again
		}
		if err != nil && err != io.EOF {
			return err
		}
		stamp, text, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(" "))
		at, terr := time.Parse(time.RFC3339Nano, string(stamp))
		switch {
		case terr != nil:
			text = bytes.TrimSuffix(line, []byte("\n"))
		case at.Before(from):
			continue
		case at.Equal(from) && skip > 0:
			skip--
			continue
		case at.Equal(l.last):
			l.same++
		default:
			l.last, l.same = at, 1
		}
		f.line(l, text)
	}
}

// maxLine bounds a line that is kept: what hako writes itself is far below it.
const maxLine = 4 << 20 // 4 MiB

// readLine reads a line with its end, of which no more than maxLine is kept.
func readLine(in *bufio.Reader) (line []byte, cut bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		kept := part[:min(len(part), maxLine-len(line))]
		line, cut = append(line, kept...), cut || len(kept) < len(part)
		if err != bufio.ErrBufferFull {
			return line, cut, err
		}
	}
}

// line shows one line of a pod.
func (f *follower) line(l *podLog, text []byte) {
	e, failure, ok := ui.Parse(text)
	switch {
	case !ok:
		f.env.Build.Events.Emit(event.StepOutput{Line: bytes.Clone(text), Stderr: true})
	case failure != nil:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.failure = failure
	default:
		f.env.Build.Events.Emit(e)
	}
}
