package plan

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// places counts the fields in a type that can name something to read.
func places(typ reflect.Type) int {
	if typ == reflect.TypeFor[From]() || typ == reflect.TypeFor[*Source]() {
		return 1
	}
	switch typ.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return places(typ.Elem())
	case reflect.Struct:
		n := 0
		for f := range typ.Fields() {
			n += places(f.Type)
		}
		return n
	}
	return 0
}

// TestReadsKnowsEverything fails when an operation or a mount can read from a place that Reads does not tell of.
func TestReadsKnowsEverything(t *testing.T) {
	t.Parallel()
	for typ, known := range map[reflect.Type]int{
		reflect.TypeFor[Run](): 0, reflect.TypeFor[Copy](): 2, reflect.TypeFor[Mkdir](): 0,
		reflect.TypeFor[BindMount](): 1, reflect.TypeFor[CacheMount](): 1, reflect.TypeFor[TmpfsMount](): 0,
		reflect.TypeFor[SecretMount](): 0, reflect.TypeFor[SSHMount](): 0,
	} {
		if n := places(typ); n != known {
			t.Errorf("%s reads from %d places, Reads knows %d", typ, n, known)
		}
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	st, src := &Stage{}, &Source{Name: "a"}
	for name, c := range map[string]struct {
		op   Op
		want []From
	}{
		"context": {&Copy{Paths: []string{"/a"}}, []From{{}}},
		"heredoc": {&Copy{Inline: []InlineFile{{Path: "a"}}}, nil},
		"stage":   {&Copy{Paths: []string{"/a"}, From: From{Stage: st}}, []From{{Stage: st}}},
		"fetched": {&Copy{Paths: []string{"/a", "/b"}, Fetched: []*Source{src, nil}}, []From{{Source: src}, {}}},
		"all":     {&Copy{Paths: []string{"/a"}, Fetched: []*Source{src}}, []From{{Source: src}}},
		"run":     {&Run{}, nil},
		"mounts": {&Run{Mounts: []Mount{
			{Source: &BindMount{From: From{Stage: st}}}, {Source: &CacheMount{}}, {Source: &CacheMount{From: &From{Source: src}}}, {Source: &TmpfsMount{}},
		}}, []From{{Stage: st}, {Source: src}}},
		"none": {nil, nil},
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
	s.Op = &Run{Mounts: []Mount{{Target: "/m", Source: &BindMount{From: From{Source: &Source{Name: "context dir", Context: "/home/somebody"}}, Path: "/"}}}}
	if text := strings.Join(s.Describe(), "\n"); strings.Contains(text, "somebody") || !strings.Contains(text, "bind / of context dir on /m") {
		t.Error(text)
	}
}
