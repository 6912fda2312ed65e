package trail

import (
	"maps"
	"path"
	"slices"

	"hako/internal/tree"
)

// Reason is why a step has to run.
type Reason struct {
	// Kind is "new", "instruction", "removed", "base", "above", "part", "file", "source" or "gone".
	Kind string
	// Subject is what changed: a path, "ARG VERSION", an image; and Change how, if there is more to say: "content", "added".
	Subject, Change string
	// Step is the ID of another step to which it happened, or empty.
	Step string
}

// String is the reason for people.
func (r Reason) String() string {
	text := ""
	switch r.Kind {
	case "new":
		text = "no earlier build had this instruction here"
	case "instruction":
		text = "the instruction was " + r.Subject
	case "removed":
		text = "the instruction " + r.Subject + " above it is gone"
	case "base":
		text = "the base image is another one: " + r.Subject
	case "above":
		text = "it made something else than before"
	case "file":
		text = "the file " + r.Subject + " has changed: " + r.Change
	case "part", "source":
		text = r.Subject + " has changed"
	default:
		text = "nothing that it depends on has changed: its record is gone, too old, or was never written"
	}
	if r.Step != "" {
		return "the step " + r.Step + " above it: " + text
	}
	return text
}

// Explain says why the last step of now has to run: what comes first, in the order of the Dockerfile, of what has changed since
// before. before may be nil, for no earlier build.
func Explain(before *Trail, now *Stage) Reason {
	old := before.stage(now.Name)
	if old == nil {
		return Reason{Kind: "new"}
	}
	if now.Digest != old.Digest {
		return Reason{Kind: "base", Subject: now.Base}
	}
	last := len(now.Steps) - 1
	at := match(old.Steps, now.Steps)
	next := 0 // the first step of old that is not accounted for
	for i := range now.Steps {
		r, changed := Reason{}, false
		switch j := at[i]; {
		case j < 0:
			r, changed = unmatched(old.Steps, next, at[i+1:]), true
			if r.Kind == "instruction" {
				next++
			}
		case j > next:
			r, changed = Reason{Kind: "removed", Subject: old.Steps[next].Text}, true
			if i < last {
				r.Step = now.Steps[i].ID
			}
			return r
		default:
			r, changed = compare(&old.Steps[j], &now.Steps[i], i == last)
			next = j + 1
		}
		if changed {
			if i < last {
				r.Step = now.Steps[i].ID
			}
			return r
		}
	}
	return Reason{Kind: "gone"}
}

// stage is the one of that name.
func (t *Trail) stage(name string) *Stage {
	if t == nil {
		return nil
	}
	for i := range t.Stages {
		if t.Stages[i].Name == name {
			return &t.Stages[i]
		}
	}
	return nil
}

// unmatched says whether a step that old does not have took the place of one, given where the following ones are.
func unmatched(old []Step, next int, following []int) Reason {
	for _, j := range following {
		if j == next {
			return Reason{Kind: "new"} // what was there comes later
		}
		if j > next {
			break
		}
	}
	if next < len(old) {
		return Reason{Kind: "instruction", Subject: old[next].Text}
	}
	return Reason{Kind: "new"}
}

// match says for each step of now which one of old has its text, in order (a longest common subsequence), or -1.
func match(old, now []Step) []int {
	const most = 1 << 20 // comparisons
	if len(old)*len(now) > most {
		return matchByPlace(old, now)
	}
	long := make([][]int, len(old)+1)
	for i := range long {
		long[i] = make([]int, len(now)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(now) - 1; j >= 0; j-- {
			if old[i].Text == now[j].Text {
				long[i][j] = long[i+1][j+1] + 1
			} else {
				long[i][j] = max(long[i+1][j], long[i][j+1])
			}
		}
	}
	out := make([]int, len(now))
	for j := range out {
		out[j] = -1
	}
	for i, j := 0, 0; i < len(old) && j < len(now); {
		switch {
		case old[i].Text == now[j].Text:
			out[j] = i
			i++
			j++
		case long[i+1][j] >= long[i][j+1]:
			i++
		default:
			j++
		}
	}
	return out
}

// matchByPlace is match for steps that stayed where they were.
func matchByPlace(old, now []Step) []int {
	out := make([]int, len(now))
	for i := range now {
		out[i] = -1
		if i < len(old) && old[i].Text == now[i].Text {
			out[i] = i
		}
	}
	return out
}

// compare finds what has changed of a step. If it is not the last one, it ran already, and what it made tells whether that matters.
func compare(old, now *Step, last bool) (Reason, bool) {
	if !last && old.After != "" && old.After == now.After {
		return Reason{}, false
	}
	digests := map[string]string{}
	for _, p := range old.Parts {
		digests[p.Name] = p.Digest
	}
	for _, p := range now.Parts {
		if digests[p.Name] != p.Digest {
			return Reason{Kind: "part", Subject: p.Name}, true
		}
		delete(digests, p.Name)
	}
	if len(digests) > 0 {
		return Reason{Kind: "part", Subject: slices.Sorted(maps.Keys(digests))[0]}, true
	}
	for i := range now.Reads {
		if i >= len(old.Reads) {
			return Reason{Kind: "source", Subject: now.Reads[i].Name}, true
		}
		if r, changed := compareReads(&old.Reads[i], &now.Reads[i]); changed {
			return r, true
		}
	}
	return Reason{Kind: "above"}, !last
}

// compareReads finds what has changed of a place that a step reads.
func compareReads(old, now *Read) (Reason, bool) {
	switch {
	case old.Digest != "" && now.Digest != "":
		if old.Digest == now.Digest {
			return Reason{}, false
		}
	case old.Whole == now.Whole:
		return Reason{}, false
	}
	if at, change := firstDifference(old.Files, now.Files); at != "" {
		return Reason{Kind: "file", Subject: at, Change: change}, true
	}
	return Reason{Kind: "source", Subject: now.Name}, true
}

// firstDifference is the first file, by path, that differs, and how.
func firstDifference(old, now *Files) (at, change string) {
	if old == nil || now == nil {
		return "", ""
	}
	was, is := old.byPath(), now.byPath()
	all := slices.Collect(maps.Keys(is))
	for p := range was {
		if _, ok := is[p]; !ok {
			all = append(all, p)
		}
	}
	slices.Sort(all)
	for _, p := range all {
		a, had := was[p]
		b, has := is[p]
		switch {
		case a == b:
			continue
		case !had && !old.cut:
			return show(p), "added"
		case !has && !now.cut:
			return show(p), "removed"
		case !had || !has:
			continue // it may be in the part that was not noted
		case a[0] != b[0]:
			return show(p), "type"
		case a[5:] != b[5:] && tree.Kind(b[0]) == tree.Symlink:
			return show(p), "link"
		case a[5:] != b[5:]:
			return show(p), "content"
		}
		return show(p), "mode, owner or attributes"
	}
	return "", ""
}

// show is a path for people.
func show(p string) string { return path.Join("/", p) }
