package main

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// model is what the generator knows of a tree that it makes: kinds by path.
type model map[string]string

func (m model) paths() []string { return slices.Sorted(maps.Keys(m)) }

// room says whether name can be made: its parents are directories or missing, and it is free.
func (m model) room(name string) bool {
	if m[name] != "" {
		return false
	}
	for p := path.Dir(name); p != "." && p != "/"; p = path.Dir(p) {
		if k := m[p]; k != "" && k != "dir" {
			return false
		}
	}
	return true
}

// put notes name and its parents.
func (m model) put(name, kind string) {
	m[name] = kind
	for p := path.Dir(name); p != "." && p != "/"; p = path.Dir(p) {
		m[p] = "dir"
	}
}

func (m model) remove(name string) {
	delete(m, name)
	for p := range m {
		if strings.HasPrefix(p, name+"/") {
			delete(m, p)
		}
	}
}

func (m model) ofKind(kind string) []string {
	var list []string
	for _, p := range m.paths() {
		if m[p] == kind {
			list = append(list, p)
		}
	}
	return list
}

// context makes the files of the build context.
func (g *generator) context() {
	m := g.files
	for range g.upTo(2, 14) {
		name := g.path(3)
		if !m.room(name) {
			continue
		}
		g.do([]choice{
			{10, func() { g.w.file(name, g.content2()); m.put(name, "file") }},
			{3, func() { g.w.line("", "mkdir %q", name); m.put(name, "dir") }},
			{4, func() { g.w.line("", "symlink %q %q", g.linkTarget(), name); m.put(name, "symlink") }},
			{1, func() {
				if path.Dir(name) == "." {
					g.w.line("", "mkfifo %q", name)
					m.put(name, "fifo")
				}
			}},
		})
	}
	g.contextExtras()
	if g.chance(60) {
		for range g.upTo(1, 2) {
			g.archive()
		}
	}
	if g.chance(35) {
		g.ignoreFile()
	}
}

// content2 is a content that a section of a case can hold: with a line end.
func (g *generator) content2() string {
	return strings.TrimSuffix(strings.ReplaceAll(g.content(), "\x00", "0"), "\n") + "\n"
}

// contextExtras adds hard links, modes, times and attributes.
func (g *generator) contextExtras() {
	m := g.files
	for _, f := range m.ofKind("file") {
		if name := g.path(2); g.chance(15) && m.room(name) && (path.Dir(name) == "." || m[path.Dir(name)] == "dir") {
			g.w.line("", "link %q %q", f, name)
			m.put(name, "file")
		}
	}
	for _, p := range m.paths() {
		switch k := m[p]; {
		case k == "file" && g.chance(25):
			g.w.line("", "chmod %s %q", g.fileMode(), p)
		case k == "dir" && g.chance(25):
			g.w.line("", "chmod %s %q", g.dirMode(), p)
		}
		if g.chance(25) {
			g.w.line("", "mtime %q %s", p, g.time())
		}
		if m[p] == "file" && g.chance(5) {
			g.w.line("", "xattr %q security.capability %s", p, capability)
		}
	}
}

// ignoreFile makes the .dockerignore.
func (g *generator) ignoreFile() {
	for range g.upTo(1, 5) {
		p := g.pattern()
		g.w.line(".dockerignore", "%s", p)
	}
}

// pattern is a line of a .dockerignore, or a value of --exclude.
func (g *generator) pattern() string {
	if g.chance(3) {
		return g.pick("#"+g.name(), "", "!", " "+g.name()+" ", "/", ".", "..", "!.", "*/", "**/", "!**")
	}
	part := func() string {
		return g.pick(g.name(), g.name(), g.name(), "*", "**", "?", "[ab]", "[^a]", "a*", "*b", ".", "..", "**b")
	}
	n := g.upTo(1, 3)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = part()
	}
	return g.some(30, "!") + g.some(15, "/") + strings.Join(parts, "/") + g.some(15, "/")
}

// archive makes an archive in the context.
func (g *generator) archive() {
	name := g.pick("t.tar", "u.tar", "t.tar.gz", "u.tgz", "sub/t.tar", "v.tar.xz")
	if g.files[name] != "" {
		return
	}
	section := "archive:" + name
	made := 0
	var earlier []string
	for range g.upTo(1, 9) {
		p := g.path(3)
		if g.chance(12) && len(earlier) > 0 {
			p = g.pick(earlier...)
		}
		if g.chance(6) {
			p = p + "/" + strings.Repeat("long", 30) + "/" + strings.Repeat("name", 10)
		}
		plain := p
		switch {
		case g.chance(15):
			p = "./" + p
		case g.chance(4):
			p = "/" + p
		case g.chance(3):
			p = "../" + p
		case g.chance(3):
			p = "a/../" + p
		case g.chance(2):
			p = g.pick(".", "./")
		}
		g.entry(section, p, earlier)
		earlier = append(earlier, plain)
		made++
	}
	g.files.put(name, "archive")
	g.archives = append(g.archives, name)
}

// entry writes one entry of an archive or of a layer.
func (g *generator) entry(section, p string, earlier []string) string {
	options := ""
	if g.chance(30) {
		t := g.time()
		if section == imageSection && strings.HasPrefix(t, "19") && t < "1970" {
			t = "1970-01-01T00:00:00Z" // see docs/exactness.md
		}
		options += " mtime=" + t
	}
	kind := "file"
	g.do([]choice{
		{10, func() {
			if g.chance(5) {
				options += " xattr.security.capability=" + capability
			}
			g.w.line(section, "file %q %s %s %q%s", p, g.fileMode(), g.owner(), g.content(), options)
		}},
		{7, func() {
			kind = "dir"
			g.w.line(section, "dir %q %s %s%s", p, g.dirMode(), g.owner(), options)
		}},
		{4, func() {
			kind = "symlink"
			g.w.line(section, "symlink %q %q owner=%s%s", p, g.linkTarget(), g.owner(), options)
		}},
		{3, func() {
			if len(earlier) == 0 {
				kind = ""
				return
			}
			kind = "link"
			g.w.line(section, "link %q %q", p, g.pick(earlier...))
		}},
		{1, func() {
			kind = "fifo"
			g.w.line(section, "fifo %q %s %s%s", p, g.fileMode(), g.owner(), options)
		}},
		{1, func() {
			kind = g.pick("char", "block")
			if section == imageSection {
				kind = "char" // BuildKit copies block devices as character devices: see docs/exactness.md
			}
			g.w.line(section, "%s %q %s %s %d:%d%s", kind, p, g.fileMode(), g.owner(), g.IntN(300), g.IntN(300), options)
		}},
	})
	return kind
}

// image makes the recipe's own base image: a few layers on the shared one.
func (g *generator) image() {
	s := imageSection
	g.w.line(s, "from %s", g.base())
	m := model{}
	for range g.upTo(1, 3) {
		g.w.line(s, "layer%s", g.some(20, " zst"))
		seen := map[string]bool{}
		if len(m) > 0 {
			g.removals(m, seen)
		}
		for range g.upTo(1, 10) {
			g.layerEntry(m, seen)
		}
	}
	if g.chance(40) {
		config := fmt.Sprintf(`{"Env":["PATH=/bin:/usr/bin","D=%s","E=/w"],"WorkingDir":%q,"User":%q,"Volumes":{"/w/%s":{}}}`,
			g.name(), g.pick("", "/w", "/w/a", "rel"), g.pick("", "", "0", "root"), g.pick("a", "v"))
		g.w.line(s, "config `%s`", config)
	}
	g.hasImage = true
	g.imageTree = m
}

// removals are whiteouts and opaque directories.
func (g *generator) removals(m model, seen map[string]bool) {
	for range g.upTo(0, 2) {
		paths := m.paths()
		if len(paths) == 0 {
			return
		}
		p := g.pick(paths...)
		if p == "w" || seen[p] || !g.parents(p, m, seen) {
			continue
		}
		if m[p] == "dir" && g.chance(50) {
			g.w.line(imageSection, "dir %q %s %s", p, g.dirMode(), g.owner())
			g.w.line(imageSection, "opaque %q", p)
			m.remove(p)
			m.put(p, "dir")
			seen[p] = true
			continue
		}
		g.w.line(imageSection, "whiteout %q", p)
		m.remove(p)
		seen[p] = true
	}
}

// parents lists the directories above p in the layer, as builders do; it says no if one of them is something else.
func (g *generator) parents(p string, m model, seen map[string]bool) bool {
	var missing []string
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		if k := m[d]; k != "" && k != "dir" || seen[d] && k != "dir" {
			return false
		}
		if !seen[d] {
			missing = append([]string{d}, missing...)
		}
	}
	for _, d := range missing {
		g.w.line(imageSection, "dir %q %s %s", d, g.dirMode(), g.owner())
		m.put(d, "dir")
		seen[d] = true
	}
	return true
}

func (g *generator) layerEntry(m model, seen map[string]bool) {
	p := "w/" + g.path(3)
	if seen[p] || !g.parents(p, m, seen) {
		return
	}
	inside := func(s string) bool { return strings.HasPrefix(s, p+"/") }
	if slices.ContainsFunc(slices.Collect(maps.Keys(seen)), inside) {
		return
	}
	earlier := slices.DeleteFunc(m.ofKind("file"), func(f string) bool { return f == p || !seen[f] })
	was := m[p]
	kind := g.entry(imageSection, p, earlier)
	if kind == "" {
		return
	}
	seen[p] = true
	if was == "dir" && kind != "dir" {
		m.remove(p)
	}
	if kind == "link" {
		kind = "file"
	}
	m.put(p, kind)
}
