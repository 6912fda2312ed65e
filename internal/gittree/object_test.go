package gittree

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/gitpack"
)

func TestParseDir(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("i", 20)
	for in, want := range map[string]string{
		"":                  "",
		"100644 a\x00" + id: "a:1",
		"100755 a\x00" + id: "a:2",
		"100664 a\x00" + id: "a:1",
		"40000 a\x00" + id + "100644 a-\x00" + id: "a:4 a-:1",
		"40000 b\x00" + id + "120000 a\x00" + id:  "a:3 b:4",
		"160000 a\x00" + id:                       "a:5",
		"x":                                       "error",
		"100644 a":                                "error",
		"100644 a\x00short":                       "error",
		"100644 \x00" + id:                        "error",
		"999999 a\x00" + id:                       "error",
		"0 a\x00" + id:                            "error",
		"-1 a\x00" + id:                           "error",
		" a\x00" + id:                             "error",
	} {
		d, err := parseDir(gitpack.SHA1, []byte(in))
		got := "error"
		if err == nil {
			var words []string
			for _, e := range d.entries {
				words = append(words, e.name+":"+string('0'+rune(e.kind)))
			}
			got = strings.Join(words, " ")
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func FuzzParseDir(f *testing.F) {
	f.Add("100644 a\x00" + strings.Repeat("i", 20))
	f.Add("40000 b\x00" + strings.Repeat("i", 20) + "120000 ..\x00" + strings.Repeat("i", 20))
	f.Fuzz(func(t *testing.T, data string) {
		d, err := parseDir(gitpack.SHA1, []byte(data))
		if err != nil {
			return
		}
		for _, e := range d.entries {
			if checkName(e.name) != nil {
				t.Errorf("%q was taken", e.name)
			}
			if got, ok := d.find(e.name); !ok || got != e {
				t.Errorf("%q is not found", e.name)
			}
		}
	})
}

func TestParseCommit(t *testing.T) {
	t.Parallel()
	id := strings.Repeat("1", 40)
	for in, want := range map[string]int64{
		"tree " + id + "\ncommitter C D <c@d> 1118131750 +0200\n\ncommitter x <y> 5 +0000\n": 1118131750,
		"tree " + id + "\nparent " + id + "\ncommitter <> 7 +0000":                           7,
		"tree " + id + "\n":                                               0,
		"tree " + id + "\ncommitter C <c@d> -5 +0000\n":                   0,
		"tree " + id + "\ncommitter C <c@d> 99999999999999999999 +0000\n": 0,
	} {
		c, err := parseCommit(gitpack.SHA1, []byte(in))
		if err != nil || c.tree.String() != id || !c.time.Equal(time.Unix(want, 0)) {
			t.Errorf("%q: %+v, %v", in, c, err)
		}
	}
	for _, in := range []string{"", "tree x", "\n\ntree " + id, "tree " + id + "0"} {
		if _, err := parseCommit(gitpack.SHA1, []byte(in)); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestParseConfig(t *testing.T) {
	t.Parallel()
	text := "# x\n[submodule \"a \\\"b\\\\\"]\n\tpath = x y # z\n\turl = \"https://h/#x\" ; y\n[Submodule \"c\"] update=none\n\tflag\n" +
		"[core]\n\tlong = a\\\n  b\\tc\n[old.Name]\n\tk=v\r\n\tempty =\n"
	var got []configValue
	if err := parseConfig(text, func(v configValue) { got = append(got, v) }); err != nil {
		t.Fatal(err)
	}
	want := []configValue{
		{"submodule", `a "b\`, "path", "x y"}, {"submodule", `a "b\`, "url", "https://h/#x"},
		{"submodule", "c", "update", "none"}, {"submodule", "c", "flag", "true"},
		{"core", "", "long", "a  b\tc"}, {"old", "name", "k", "v"}, {"old", "name", "empty", ""},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(configValue{})); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"[x", "[x \"y]", "[x \"y\n\"]", "key = v", "[x]\n1 y", "[x]\nk = \"open\n", "[x]\nk = \\x", "[x] ]", "[a b]"} {
		if err := parseConfig(bad, func(configValue) {}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("[submodule \"a\"]\n\tpath = x\n\turl = ../y.git\n")
	f.Add("[a]\nk = \"\\\n\"#")
	f.Fuzz(func(t *testing.T, text string) {
		if err := parseConfig(text, func(v configValue) {
			if v.section == "" || v.key == "" {
				t.Errorf("%+v", v)
			}
		}); err != nil && !strings.Contains(err.Error(), "line ") {
			t.Error(err)
		}
	})
}

func TestResolveURL(t *testing.T) {
	t.Parallel()
	for _, tc := range [][3]string{
		{"https://u:p@h/a/b.git", "../c.git", "https://u:p@h/a/c.git"},
		{"https://h/a/b.git", "./c.git", "https://h/a/b.git/c.git"},
		{"https://h/a/b.git/", "../../c/d.git", "https://h/c/d.git"},
		{"git@h:a/b.git", "../c.git", "git@h:a/c.git"},
		{"git@h:/a/b.git", "../c.git", "git@h:/a/c.git"},
		{"git@h:a/b.git", "../../c.git", "git@h:c.git"},
		{"ssh://git@h:22/a/b.git", "../c.git", "ssh://git@h:22/a/c.git"},
		{"https://u:p@h/a.git", "https://H/c.git", "https://u:p@H/c.git"},
		{"https://u:p@h/a.git", "https://x:y@h/c.git", "https://x:y@h/c.git"},
		{"https://u:p@h/a.git", "http://h/c.git", "http://h/c.git"},
		{"https://u:p@h/a.git", "https://h:444/c.git", "https://h:444/c.git"},
		{"https://u:p@h/a.git", "https://other/c.git", "https://other/c.git"},
		{"https://u:p@h/a.git", "git@other:c.git", "git@other:c.git"},
		{"https://h/a.git", "../../../c.git", ""},
		{"https://h/a.git", "..", ""},
		{"https://h/a.git", "file:///etc", ""},
		{"https://h/a.git", "ext::sh -c x", ""},
		{"https://h/a.git", "/etc", ""},
		{"https://h/a.git", "../a.git/../..", ""},
		{"https://h/a.git", "-x", ""},
		{"https://h/a.git", "C:\\x", ""},
	} {
		got, err := resolveURL(tc[0], tc[1])
		if got != tc[2] || (err == nil) != (tc[2] != "") {
			t.Errorf("%s + %s: %q, %v, want %q", tc[0], tc[1], got, err, tc[2])
		}
	}
}

func TestWildmatch(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, text string
		want          bool
	}{
		{"*.txt", "a.txt", true}, {"*.txt", "a.txt.b", false}, {"*", "", true}, {"a*b*c", "axxbyyc", true}, {"a?c", "abc", true}, {"a?c", "a/c", false},
		{"*", "a/b", false}, {"**", "a/b", true}, {"**/x", "x", true}, {"**/x", "a/b/x", true}, {"**/x", "ax", false}, {"**/x", "a/bx", false}, {"a/**/x", "a/bx", false}, {"a/**/x", "a/b/c/x", true}, {"a/**", "a/b/c", true},
		{"a/**/b", "a/b", true}, {"a/**/b", "a/x/y/b", true}, {"a**b", "a/b", false}, {"a**b", "axb", true}, {"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false},
		{"[^a]x", "bx", true}, {"[]]x", "]x", true}, {"[a", "a", false}, {`\*`, "*", true}, {`\*`, "a", false}, {`[\]]`, "]", true}, {"[a]", "/", false}, {"", "", true}, {"", "a", false},
	} {
		if got := wildmatch(tc.pattern, tc.text); got != tc.want {
			t.Errorf("%q %q: %v", tc.pattern, tc.text, got)
		}
	}
	if wildmatch(strings.Repeat("a*", 200)+"b", strings.Repeat("a", 2000)) {
		t.Error("a long pattern matches")
	}
}

// TestMacrosTakeNoMemory has lines of many macros that each stand for many attributes: it is not parallel, to count.
func TestMacrosTakeNoMemory(t *testing.T) { //nolint:paralleltest // see above
	text := "[attr]m" + strings.Repeat(" a", 1000) + "\n" + strings.Repeat("*"+strings.Repeat(" m", 1000)+"\n", 20)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := parseAttributes(".", text, nil)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes of rules take %d bytes", len(text), got)
	}
	if got := len(s.of("x")); got != 2 {
		t.Errorf("%d attributes, not 2", got)
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"utf-16":         "\xff\xfea\x00=\xd8\x00\xde\xfd\xff",
		"UTF-16LE":       "a\x00=\xd8\x00\xde\xfd\xff",
		"UTF-16BE":       "\x00a\xd8=\xde\x00\xff\xfd",
		"UTF-16LE-BOM":   "\xff\xfea\x00=\xd8\x00\xde\xfd\xff",
		"UTF_32BE":       "\x00\x00\x00a\x00\x01\xf6\x00\x00\x00\xff\xfd",
		"UTF-32":         "\xff\xfe\x00\x00a\x00\x00\x00\x00\xf6\x01\x00\xfd\xff\x00\x00",
		"ISO-8859-1":     "",
		"something else": "",
	} {
		got, err := encode([]byte("a\U0001F600\xff"), name)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
