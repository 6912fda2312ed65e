package solve

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"hako/internal/plan"
)

func TestOnlyEqualOperationsAreShared(t *testing.T) {
	t.Parallel()
	base := &plan.ImageRef{Ref: "docker.io/library/a:1", Digest: "sha256:1"}
	again := &plan.ImageRef{Ref: "docker.io/library/a:1", Digest: "sha256:1"}
	run := func(args ...string) *plan.Step { return &plan.Step{Op: &plan.Run{Args: args}} }
	arm := run("a")
	arm.Platform.Architecture = "arm64"
	src1 := &plan.Stage{Base: plan.Base{Image: base}, Steps: []*plan.Step{run("a")}}
	src2 := &plan.Stage{Base: plan.Base{Image: again}, Steps: []*plan.Step{run("a")}}
	src3 := &plan.Stage{Base: plan.Base{Image: base}, Steps: []*plan.Step{run("b")}}
	from := func(st *plan.Stage) *plan.Step { return &plan.Step{Op: &plan.Copy{From: plan.From{Stage: st}}} }
	h := newShare([]*plan.Graph{{Stages: []*plan.Stage{src1, src2, src3}}}, false)
	for _, test := range []struct {
		name string
		a, b *plan.Step
		same bool
	}{
		{"equal", run("a"), run("a"), true},
		{"words", run("a b"), run("a", "b"), false},
		{"quotes", run(`a" "b`), run("a", "b"), false},
		{"none and an empty one", run(), run(""), false},
		{"platform", run("a"), arm, false},
		{"kind", &plan.Step{Op: &plan.Mkdir{Path: "/a"}}, &plan.Step{Op: &plan.Copy{Dest: "/a"}}, false},
		{"next field", &plan.Step{Op: &plan.Mkdir{Path: "/a"}}, &plan.Step{Op: &plan.Mkdir{User: "/a"}}, false},
		{"equal stages", from(src1), from(src2), true},
		{"other stages", from(src1), from(src3), false},
		{"context", from(src1), from(nil), false},
		{"copies for other platforms", &plan.Step{Op: &plan.Copy{Dest: "/"}}, &plan.Step{Op: &plan.Copy{Dest: "/"}, Platform: arm.Platform}, true},
	} {
		if same := h.operation(test.a) == h.operation(test.b); same != test.same {
			t.Errorf("%s: same = %v\n%s\n%s", test.name, same, h.operation(test.a), h.operation(test.b))
		}
	}
	if h.steps[src1.Steps[0]] != h.steps[src2.Steps[0]] || h.steps[src1.Steps[0]] == h.steps[src3.Steps[0]] {
		t.Error("equal steps on equal bases are one, and no others")
	}
}

// hidden does not show what it holds.
type hidden string

func (hidden) String() string { return "***" }

func TestDescriptionsTellValuesApart(t *testing.T) {
	t.Parallel()
	h := newShare(nil, false)
	seen := map[string]any{}
	now := time.Unix(1, 0)
	for _, v := range []any{
		hidden("a"), hidden("b"), 1, 2, true, 1.5, "1", []string{"1"}, [1]string{"2"}, []byte("1"), map[string]string{"a": "b"},
		map[string]string{"a": "c"}, map[string]string{"b": "a", "c": "d"}, &now, new(time.Time), (*int)(nil), struct{ a, b string }{"x", ""}, struct{ a, b string }{"", "x"},
	} {
		var b strings.Builder
		h.describe(&b, reflect.ValueOf(v))
		if other, ok := seen[b.String()]; ok {
			t.Errorf("%#v and %#v are both %s", v, other, b.String())
		}
		seen[b.String()] = v
	}
	var once, twice strings.Builder
	m := map[string]int{"a": 1, "b": 2, "c": 3, "d": 4}
	h.describe(&once, reflect.ValueOf(m))
	h.describe(&twice, reflect.ValueOf(m))
	if once.String() != twice.String() {
		t.Error("the order of a map shows")
	}
}
