package event_test

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/event"
)

type sink []event.Event

func (s *sink) Emit(e event.Event) { *s = append(*s, e) }

func TestCounter(t *testing.T) {
	t.Parallel()
	var got sink
	p := event.Progress{ID: "1", What: "x", Total: 3 << 20}
	c := event.NewCounter(strings.NewReader(strings.Repeat("x", 3<<20)), &got, p)
	buf := make([]byte, 700<<10)
	for {
		if _, err := c.Read(buf); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	c.Finish()
	c.Finish()
	at := func(done int64, finished bool) event.Event {
		q := p
		q.Done, q.Finished = done, finished
		return q
	}
	want := sink{at(0, false), at(1400<<10, false), at(2800<<10, false), at(3<<20, true)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
