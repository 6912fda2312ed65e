package solve

import (
	"reflect"
	"slices"
	"strings"

	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/trail"
)

// explain notes that sh is not in the cache, and tells why if that is wanted.
func (s *solver) explain(sh *shared) {
	s.missed.Store(true)
	if !s.parts.Explain {
		return
	}
	st := s.stageOf(sh.step)
	if st == nil {
		return
	}
	r := trail.Explain(s.parts.Before, s.trailOf(st, sh.step))
	s.parts.Events.Emit(event.CacheMiss{
		Step: sh.step.ID, Kind: r.Kind, Subject: r.Subject, Change: r.Change, Cause: r.Step, Message: r.String(), Span: sh.step.Span,
	})
}

// stageOf is the stage that step belongs to.
func (s *solver) stageOf(step *plan.Step) *plan.Stage {
	for st := range s.stages {
		if slices.Contains(st.Steps, step) {
			return st
		}
	}
	return nil
}

// leaveTrail hands out what the steps of graphs were made of, when none of them runs any more.
func (s *solver) leaveTrail(graphs []*plan.Graph) {
	if s.parts.Trailed == nil || !s.missed.Load() {
		return
	}
	t := &trail.Trail{}
	for _, g := range graphs {
		for _, st := range g.Stages {
			t.Stages = append(t.Stages, *s.trailOf(st, nil))
		}
	}
	s.parts.Trailed(t)
}

// trailOf is what the steps of st are made of: up to last, which is about to run, or all if last is nil. The steps before last
// are done.
func (s *solver) trailOf(st *plan.Stage, last *plan.Step) *trail.Stage {
	out := &trail.Stage{Name: st.ID() + " " + image.FormatPlatform(st.Platform)}
	switch {
	case st.Base.Image != nil:
		out.Base, out.Digest = st.Base.Image.Name, st.Base.Image.Digest.String()
	case st.Base.Stage != nil:
		out.Base = "the stage " + st.Base.Stage.ID()
		if s.finished(st.Base.Stage) {
			out.Digest = s.stages[st.Base.Stage].state.content
		}
	}
	for _, step := range st.Steps {
		sh := s.share.steps[step]
		if sh == nil {
			continue
		}
		made := trail.Step{ID: step.ID, Text: step.Text, Parts: parts(step), Reads: sh.noted}
		select {
		case <-sh.done:
			if sh.state != nil { // not if a layer of the cache was lost
				made.After = sh.state.content
			}
		default:
		}
		out.Steps = append(out.Steps, made)
		if step == last {
			break
		}
	}
	return out
}

// finished says whether st has been built.
func (s *solver) finished(st *plan.Stage) bool {
	select {
	case <-s.stages[st].done:
		return s.stages[st].state != nil
	default:
		return false
	}
}

// parts are what the operation of step consists of, by names for people and short digests.
func parts(step *plan.Step) []trail.Part {
	var out []trail.Part
	add := func(name, value string) {
		out = append(out, trail.Part{Name: name, Digest: trail.Short(name, value)})
	}
	op := step.Op
	if run, ok := op.(*plan.Run); ok {
		cp := *run
		for _, kv := range withoutProxies(run.Env, step.Env) {
			name, value, _ := strings.Cut(kv, "=")
			kind := "ARG "
			if slices.Contains(step.Env, kv) {
				kind = "ENV "
			}
			add(kind+name, value)
		}
		cp.Env = nil
		op = &cp
	}
	v := reflect.ValueOf(op).Elem()
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			continue
		}
		e := &encoder{name: standing(func(plan.From) string { return "" })}
		e.value(v.Field(i))
		add(partName(v.Type().Field(i).Name), e.String())
	}
	return out
}

// partName is what people call a field of an operation.
func partName(field string) string {
	name, ok := map[string]string{
		"Args": "the command", "Dir": "the working directory", "User": "the user", "Mounts": "an option of --mount", "Network": "--network",
		"Files": "a here-document", "Inline": "a here-document", "Hostname": "the host name", "ExtraHosts": "--add-host", "ShmSize": "--shm-size",
		"Paths": "the list of sources", "Fetched": "a source", "Dest": "the destination", "Chown": "--chown", "Chmod": "--chmod",
		"Exclude": "--exclude", "Parents": "--parents", "Link": "--link", "Unpack": "--unpack",
	}[field]
	if !ok {
		return field
	}
	return name
}

// readName is what people call a place that a step reads.
func readName(f plan.From) string {
	switch {
	case f.Stage != nil:
		return "what it takes of the stage " + f.Stage.ID()
	case f.Image != nil:
		return "what it takes of the image " + f.Image.Name
	case f.Source != nil:
		return "what it takes of " + f.String()
	}
	return "what it takes of the context"
}
