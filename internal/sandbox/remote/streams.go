package remote

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
)

// streams are the pipes of one step. The child gets the far ends, the near ends are copied from and to the step's streams.
type streams struct {
	far  []*os.File
	near []*os.File
	done errgroup.Group
	// stdin is the near end of stdin, or nil.
	stdin *os.File
}

func newStreams(step *sandbox.Step) (_ *streams, err error) {
	s := &streams{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if step.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make the pipe of stdin: %w", err)
		}
		s.far, s.near, s.stdin = append(s.far, r), append(s.near, w), w
	}
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make the pipes of stdout and stderr: %w", err)
		}
		s.far, s.near = append(s.far, w), append(s.near, r)
	}
	return s, nil
}

// close drops all pipes of a step that never started.
func (s *streams) close() {
	child.CloseAll(s.far)
	child.CloseAll(s.near)
}

// copy starts copying. It owns the near ends from now on.
func (s *streams) copy(step *sandbox.Step) {
	outputs := s.near
	if s.stdin != nil {
		outputs = s.near[1:]
		go func() { // not waited for: reading from step.Stdin cannot be interrupted
			_, _ = io.Copy(s.stdin, step.Stdin) // a step need not read its input to the end
			_ = s.stdin.Close()
		}()
	}
	for i, w := range []io.Writer{step.Stdout, step.Stderr} {
		s.done.Go(func() error {
			_, err := io.Copy(w, outputs[i])
			if err != nil {
				// Nobody listens any more; the step must not be held up by a full pipe.
				_, _ = io.Copy(io.Discard, outputs[i])
			}
			return errors.Join(err, outputs[i].Close())
		})
	}
}
