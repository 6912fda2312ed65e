package event

import "io"

// progressStep is how many bytes pass between two Progress events.
const progressStep = 1 << 20

// Counter counts the bytes read through it and reports them as Progress events, the first of them at once.
// It is used by one goroutine.
type Counter struct {
	r    io.Reader
	sink Sink
	p    Progress
	told int64
}

// NewCounter starts a transfer: p holds its ID, What and Total, and Done if a part is there already.
// The caller calls Finish at the end, whatever happened.
func NewCounter(r io.Reader, sink Sink, p Progress) *Counter {
	sink.Emit(p)
	return &Counter{r: r, sink: sink, p: p, told: p.Done}
}

// Read reads on and counts.
func (c *Counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.p.Done += int64(n)
	if c.p.Done-c.told >= progressStep {
		c.told = c.p.Done
		c.sink.Emit(c.p)
	}
	return n, err
}

// Finish reports the end of the transfer. It may be called more than once; only the first counts.
func (c *Counter) Finish() {
	if c.p.Finished {
		return
	}
	c.p.Finished = true
	c.sink.Emit(c.p)
}
