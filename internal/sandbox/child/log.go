package child

import (
	"bytes"
	"io"
	"sync"
)

// logSize is how much of the end of a child's log is kept: enough for a panic with the stacks of the first goroutines.
const logSize = 64 << 10 // 64 KiB

// tail keeps the beginning and the end of what is written to it. A panic is at the beginning of what a dying process
// says, and its last words are at the end; both matter, the thousand stacks between them do not.
type tail struct {
	mu   sync.Mutex
	head []byte
	ring []byte
	lost bool
}

// Write implements [io.Writer]; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(p)
	if room := logSize/2 - len(t.head); room > 0 {
		k := min(room, len(p))
		t.head = append(t.head, p[:k]...)
		p = p[k:]
	}
	t.ring = append(t.ring, p...)
	if extra := len(t.ring) - logSize/2; extra > 0 {
		t.ring = append(t.ring[:0], t.ring[extra:]...)
		t.lost = true
	}
	return n, nil
}

// String returns what is kept, with a mark where something is missing.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b bytes.Buffer
	b.Write(t.head)
	if t.lost {
		b.WriteString("\n[…]\n")
	}
	b.Write(t.ring)
	return b.String()
}

// collect copies r into t until it ends.
func (t *tail) collect(r io.Reader) {
	_, _ = io.Copy(t, r) // the pipe ends with the process; there is nobody to tell anything else
}
