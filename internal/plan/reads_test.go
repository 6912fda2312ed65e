package plan

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// froms counts the places in a type where a From can be.
func froms(typ reflect.Type, seen map[reflect.Type]bool) int {
	if typ == reflect.TypeFor[From]() {
		return 1
	}
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return froms(typ.Elem(), seen)
	case reflect.Struct:
		if seen[typ] {
			return 0
		}
		seen[typ] = true
		n := 0
		for f := range typ.Fields() {
			n += froms(f.Type, seen)
		}
		return n
	}
	return 0
}

// TestReadsKnowsEverything fails when an operation can read from a place that Reads does not tell of.
func TestReadsKnowsEverything(t *testing.T) {
	t.Parallel()
	n := 0
	for _, typ := range []reflect.Type{reflect.TypeFor[Run](), reflect.TypeFor[Copy](), reflect.TypeFor[Mkdir]()} {
		n += froms(typ, map[reflect.Type]bool{})
	}
	if known := 1; n != known { // Copy.From
		t.Errorf("operations read from %d places, Reads knows %d", n, known)
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	st := &Stage{}
	for name, c := range map[string]struct {
		op   Op
		want []From
	}{
		"context": {&Copy{Paths: []string{"/a"}}, []From{{}}},
		"heredoc": {&Copy{Inline: []InlineFile{{Path: "a"}}}, nil},
		"stage":   {&Copy{Paths: []string{"/a"}, From: From{Stage: st}}, []From{{Stage: st}}},
		"run":     {&Run{}, nil},
		"none":    {nil, nil},
	} {
		if got := (&Step{Op: c.op}).Reads(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestURI(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]*Source{
		"https://example.com/a":          {HTTP: &HTTPSource{URL: "https://u:p@example.com/a?token=t"}},
		"https://example.com/r.git#v1:d": {Git: &GitSource{Remote: "https://u:p@example.com/r.git", Ref: "v1", Subdir: "d"}},
		"https://example.com/r.git":      {Git: &GitSource{Remote: "https://example.com/r.git"}},
		"":                               {Context: "/home/somebody"},
		"s3://bucket/key":                {Context: "s3://bucket/key"},
	} {
		if got := s.URI(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDescribeLeavesPathsOut(t *testing.T) {
	t.Parallel()
	s := &Step{ID: "a/1", Text: "COPY --from=dir /z /z", Op: &Copy{Paths: []string{"/z"}, Dest: "/z", From: From{Source: &Source{Name: "context dir", Context: "/home/somebody"}}}}
	if diff := cmp.Diff("copy /z to /z from context dir", strings.Join(s.Describe(), "\n")); diff != "" {
		t.Error(diff)
	}
}
