package solve

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"hako/internal/plan"
	"hako/internal/trail"
)

// share knows which steps are the same: equal operations on equal states. Graphs for several platforms have most of
// their steps in common (a stage for $BUILDPLATFORM, a COPY into scratch), and such a step runs once, whoever needs it.
//
// A state is a number: that of its base, then one more for each operation on top. Operations are compared as a whole,
// by reflection, so that a field that is added to one is never forgotten here.
type share struct {
	numbers map[string]int // by what makes the state
	final   map[*plan.Stage]int
	images  map[int]string // definitions of base images, by their states
	steps   map[*plan.Step]*shared
	all     map[int]*shared
	links   map[string]*link // by operation, whatever they stand on
	// unpacked are the images whose files somebody reads, by name; of others only names are looked up.
	unpacked map[string]bool
}

// shared is one operation on one state, and what became of it.
type shared struct {
	// step is the first of those that are this.
	step *plan.Step
	// keep says that a later step of any of them reads the layer's files outside a sandbox.
	keep bool
	// below is the state that it stands on, by number; operation is what it does, see the function of this name.
	below     int
	operation string
	// definition is the step's key before anything is built, and known what the cache has by it; set by consult.
	definition string
	known      *Cached
	// keeps says whether the cache wants the step's result, and why, perhaps, why not.
	keeps bool
	why   string
	// noted is what is known of what it reads, in the order of reads; set by consult, and completed when the step is looked up.
	noted []trail.Read
	// result says that the layer is in an image that is built.
	result bool
	// link makes the layer of a COPY --link; nil for others.
	link *link

	once    sync.Once
	done    chan struct{} // closed on success, and with err
	state   *state        // the result, once done is closed
	err     error         // instead of it: a layer of the cache was lost
	created time.Time
}

// newShare finds the equal steps of graphs, which were made from one Dockerfile. files says that the files of the
// results are going to be read.
func newShare(graphs []*plan.Graph, files bool) *share {
	h := &share{
		numbers: map[string]int{}, images: map[int]string{}, final: map[*plan.Stage]int{}, steps: map[*plan.Step]*shared{}, all: map[int]*shared{},
		links: map[string]*link{}, unpacked: map[string]bool{},
	}
	for _, g := range graphs {
		uses := newUses(g)
		for _, st := range g.Stages {
			h.stage(st, uses)
		}
		for _, ref := range uses.images(g) {
			h.unpacked[imageName(ref)] = true
		}
		if ref := rootImage(g.Target); files && ref != nil {
			h.unpacked[imageName(ref)] = true
		}
	}
	return h
}

func (h *share) stage(st *plan.Stage, uses *uses) {
	cur := h.base(st)
	for i, step := range st.Steps {
		if step.Op == nil {
			continue
		}
		text, keep := h.operation(step), uses.keep(st, i)
		under := cur
		cur = h.number(cur, text)
		s, ok := h.all[cur]
		if !ok {
			s = &shared{step: step, below: under, operation: operation(step), done: make(chan struct{})}
			h.all[cur] = s
		}
		if isLink(step) {
			s.link = h.link(step, text)
			s.link.keep = s.link.keep || keep
			s.link.result = s.link.result || uses.result[st]
		}
		s.keep = s.keep || keep
		s.result = s.result || uses.result[st]
		h.steps[step] = s
	}
	h.final[st] = cur
}

// link is the one that makes the layer of step.
func (h *share) link(step *plan.Step, text string) *link {
	l, ok := h.links[text]
	if !ok {
		l = &link{alone: &shared{step: step, operation: operation(step)}, done: make(chan struct{})}
		h.links[text] = l
	}
	return l
}

// base is the state that st starts from.
func (h *share) base(st *plan.Stage) int {
	switch {
	case st.Base.Stage != nil:
		return h.final[st.Base.Stage]
	case st.Base.Image != nil:
		n := h.number(0, imageName(st.Base.Image))
		h.images[n] = imageDefinition(st.Base.Image)
		return n
	}
	return 0
}

// rootImage is the image that st stands on, or nil.
func rootImage(st *plan.Stage) *plan.ImageRef {
	for st != nil && st.Base.Stage != nil {
		st = st.Base.Stage
	}
	if st == nil {
		return nil
	}
	return st.Base.Image
}

func imageName(ref *plan.ImageRef) string { return fmt.Sprintf("image %q %q", ref.Ref, ref.Digest) }

// imageDefinition identifies an image wherever it comes from.
func imageDefinition(ref *plan.ImageRef) string { return "image " + ref.Digest.String() }

// number is that of the state that operation makes of the state below.
func (h *share) number(below int, operation string) int {
	key := fmt.Sprintf("%d %s", below, operation)
	n, ok := h.numbers[key]
	if !ok {
		n = len(h.numbers) + 1
		h.numbers[key] = n
	}
	return n
}

// operation is text that is the same for equal operations only. A command depends on the processor it is for, too.
func (h *share) operation(step *plan.Step) string {
	var b strings.Builder
	if _, ok := step.Op.(*plan.Run); ok {
		h.describe(&b, reflect.ValueOf(step.Platform))
	}
	h.describe(&b, reflect.ValueOf(step.Op))
	return b.String()
}

// describe writes v such that different values never look the same. Stages are what they end as, images what is in them.
func (h *share) describe(b *strings.Builder, v reflect.Value) {
	if v.CanInterface() && h.special(b, v.Interface()) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			b.WriteString("nil;")
			return
		}
		fmt.Fprintf(b, "%s:", v.Elem().Type())
		h.describe(b, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			h.describe(b, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		fmt.Fprintf(b, "%d:", v.Len())
		for i := range v.Len() {
			h.describe(b, v.Index(i))
		}
	case reflect.Map:
		h.describeMap(b, v)
	case reflect.String:
		fmt.Fprintf(b, "%q;", v.String()) // as it is: a String method may hide something
	default:
		fmt.Fprintf(b, "%v;", v)
	}
}

// special describes what is more than its fields, or is not told apart by them.
func (h *share) special(b *strings.Builder, v any) bool {
	switch x := v.(type) {
	case *plan.Stage:
		if x != nil {
			fmt.Fprintf(b, "stage %d;", h.final[x])
		}
		return x != nil
	case *plan.ImageRef:
		if x != nil {
			b.WriteString(imageName(x) + ";")
		}
		return x != nil
	case time.Time:
		fmt.Fprintf(b, "%d;", x.UnixNano())
		return true
	case []byte:
		fmt.Fprintf(b, "bytes %q;", x)
		return true
	}
	return false
}

func (h *share) describeMap(b *strings.Builder, v reflect.Value) {
	var pairs []string
	for it := v.MapRange(); it.Next(); {
		var pair strings.Builder
		h.describe(&pair, it.Key())
		h.describe(&pair, it.Value())
		pairs = append(pairs, pair.String())
	}
	slices.Sort(pairs)
	fmt.Fprintf(b, "%d:%s", len(pairs), strings.Join(pairs, ""))
}

// inOrder are the steps, each after what it stands on, and then those that stand on nothing wherever they are.
func (h *share) inOrder() []*shared {
	var out []*shared
	for _, n := range slices.Sorted(maps.Keys(h.all)) {
		out = append(out, h.all[n])
	}
	for _, text := range slices.Sorted(maps.Keys(h.links)) {
		out = append(out, h.links[text].alone)
	}
	return out
}

// definitions are the definitions of inOrder's steps, given what each reads of contexts. That of a step whose contexts
// could not be read is empty, and so are those of all that need it.
func (h *share) definitions(contexts [][]string) []string {
	known := map[int]string{0: "scratch"}
	maps.Copy(known, h.images)
	steps, numbers := h.inOrder(), slices.Sorted(maps.Keys(h.all))
	out := make([]string, len(steps))
	for i, s := range steps {
		out[i] = h.definition(s, known, contexts[i])
		if i < len(numbers) {
			known[numbers[i]] = out[i]
		}
	}
	return out
}

func (h *share) definition(s *shared, known map[int]string, contexts []string) string {
	f := newFramed(keyVersion + " definition")
	parts := []string{s.operation, known[s.below]}
	all := reads(s.step.Op)
	if len(contexts) != len(all) {
		return ""
	}
	for i, r := range all {
		switch {
		case r.from.Stage != nil:
			parts = append(parts, known[h.final[r.from.Stage]])
		case r.from.Image != nil:
			parts = append(parts, imageDefinition(r.from.Image))
		default:
			parts = append(parts, contexts[i])
		}
	}
	if slices.Contains(parts, "") {
		return ""
	}
	f.add(parts...)
	return f.hex()
}
