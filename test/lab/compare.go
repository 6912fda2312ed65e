package lab

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// Exception is a path whose difference between two builds of one Dockerfile is no fault, and why.
type Exception struct {
	// Pattern is a path.Match pattern; "/**" at its end means everything below as well.
	Pattern string
	// What is "content" if only bytes may differ, "all" if the file may also be absent or of another kind.
	What string
	// Why it differs even between two builds by one builder.
	Why string
}

// Compare lists what differs between want and got, one line for each path and field, leaving out the exceptions.
func Compare(want, got Tree, except []Exception) []string {
	var diffs []string
	paths := slices.Sorted(maps.Keys(want))
	for p := range got {
		if _, ok := want[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		what := excepted(p, except)
		if what == "all" {
			continue
		}
		w, inWant := want[p]
		g, inGot := got[p]
		switch {
		case !inGot:
			diffs = append(diffs, p+": missing")
		case !inWant:
			diffs = append(diffs, fmt.Sprintf("%s: extra (%s)", p, g.Kind))
		default:
			diffs = append(diffs, compareNode(p, w, g, what == "content")...)
		}
	}
	return diffs
}

func compareNode(p string, w, g Node, anyContent bool) []string {
	var diffs []string
	field := func(name string, want, got any) {
		if want != got {
			diffs = append(diffs, fmt.Sprintf("%s: %s is %v, want %v", p, name, got, want))
		}
	}
	field("kind", w.Kind, g.Kind)
	field("mode", fmt.Sprintf("%04o", w.Mode), fmt.Sprintf("%04o", g.Mode))
	field("uid", w.UID, g.UID)
	field("gid", w.GID, g.GID)
	field("target", w.Target, g.Target)
	field("device", w.Device, g.Device)
	field("first link", w.First, g.First)
	field("xattrs", fmt.Sprintf("%q", w.Xattrs), fmt.Sprintf("%q", g.Xattrs))
	if !anyContent {
		field("size", w.Size, g.Size)
		field("content", w.Content, g.Content)
	}
	return diffs
}

// excepted is what may differ at p: "", "content" or "all". The widest exception wins.
func excepted(p string, except []Exception) string {
	what := ""
	for _, e := range except {
		if matches(e.Pattern, p) && what != "all" {
			what = e.What
		}
	}
	return what
}

func matches(pattern, p string) bool {
	above, below := strings.CutSuffix(pattern, "/**")
	if !below {
		ok, err := path.Match(pattern, p)
		return err == nil && ok
	}
	for q := path.Dir(p); ; q = path.Dir(q) {
		if ok, err := path.Match(above, q); err == nil && ok {
			return true
		}
		if q == "/" {
			return false
		}
	}
}
