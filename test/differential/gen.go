package main

import (
	"fmt"
	"slices"
	"strings"
)

// generator makes one recipe.
type generator struct {
	dice
	w writer
	// files is what the context holds, archives those of its files that are archives.
	files    model
	archives []string
	// runs says that the recipe has RUN instructions.
	runs bool
	// hasImage says that the recipe has an image of its own; imageTree is what it holds.
	hasImage  bool
	imageTree model
	// stages are the names of the stages so far; scratch says of each whether there is no shell in it.
	stages  []string
	scratch []bool
	// places are the paths that scripts used.
	places []string
}

// generate makes the n-th recipe of a seed. Only every third has RUN: the others are much faster.
func generate(seed, n uint64) recipe {
	g := &generator{dice: newDice(seed, n), files: model{}, runs: n%3 == 0}
	g.context()
	if g.chance(60) {
		g.image()
	}
	if g.chance(25) {
		g.w.line(dockerfile, "ARG %s", g.pick("BASE=b", "D=b", "X"))
	}
	for i := range g.upTo(1, 3) {
		g.stage(i)
	}
	return recipe{g.w.units}
}

// stage makes one stage.
func (g *generator) stage(i int) {
	name := fmt.Sprintf("s%d", i)
	bases := []string{g.base(), g.base(), "scratch"}
	if g.hasImage {
		bases = append(bases, imageName, imageName, imageName, imageName)
	}
	if i > 0 {
		bases = append(bases, g.stages...)
	}
	base := g.pick(bases...)
	g.w.line(dockerfile, "FROM %s AS %s", base, name)
	noShell := base == "scratch"
	if k := slices.Index(g.stages, base); k >= 0 {
		noShell = g.scratch[k]
	}
	g.stages, g.scratch = append(g.stages, name), append(g.scratch, noShell)
	for range g.upTo(1, 7) {
		g.instruction(noShell)
	}
}

// base is the shared image to stand on: without RUN, one without a shell.
func (g *generator) base() string {
	if g.runs {
		return "base"
	}
	return "plain"
}

// earlier are the stages that the current one can copy from.
func (g *generator) earlier() []string { return g.stages[:len(g.stages)-1] }

func (g *generator) instruction(noShell bool) {
	run := 0
	if g.runs && !noShell {
		run = 22
	}
	from := 0
	if len(g.earlier()) > 0 {
		from = 14
	}
	add := 0
	if len(g.archives) > 0 {
		add = 10
	}
	g.do([]choice{
		{18, func() { g.copyContext("COPY") }},
		{4, func() { g.copyContext("ADD") }},
		{add, g.addArchive},
		{from, g.copyFrom},
		{2, g.copyHeredoc},
		{run, g.run},
		{4, func() { g.w.line(dockerfile, "WORKDIR %s", g.destination()) }},
		{2, func() { g.w.line(dockerfile, "USER %s", g.user()) }},
		{5, g.metadata},
		{2, func() { g.w.line(dockerfile, "VOLUME %s", g.pick("/w/"+g.path(2), `["/w/a", "/v"]`, "/v", "$E")) }},
	})
}

func (g *generator) user() string {
	return g.pick("alice", "1000", "bob:staff", "0", "root", "1000:50", "65534", "alice:7", "$U", "4242:4343")
}

func (g *generator) metadata() {
	g.do([]choice{
		{6, func() { g.w.line(dockerfile, "ENV %s", g.assignment()) }},
		{4, func() {
			g.w.line(dockerfile, "ARG %s", g.pick("D", "E=/w/"+g.name(), "F=${D:-c}/x", "X=1 Y=2", "U=1000", "D=$E"))
		}},
		{2, func() { g.w.line(dockerfile, "LABEL %s", g.pick("a=b", `"a b"="$D"`, "x.y=${E} z='$E'", "k=")) }},
		{1, func() { g.w.line(dockerfile, "EXPOSE %s", g.pick("80", "53/udp 80/tcp", "8000-8002")) }},
		{1, func() { g.w.line(dockerfile, "CMD %s", g.pick("echo $D", `["a","b"]`, "[]")) }},
		{1, func() { g.w.line(dockerfile, "ENTRYPOINT %s", g.pick("echo $D", `["a","b"]`)) }},
		{1, func() { g.w.line(dockerfile, "STOPSIGNAL %s", g.pick("9", "SIGTERM")) }},
		{1, func() { g.w.line(dockerfile, `SHELL ["/bin/sh", "-c"]`) }},
	})
}

func (g *generator) assignment() string {
	name := g.pick("D", "E", "F", "U", "HOME")
	value := g.pick(g.name(), "/w/"+g.name(), "${D}", "$E/x", `"a b"`, `'$D'`, "${F:-d}", "${F:+/w}", `a\ b`, "1000")
	return name + "=" + value
}

// destination is where something goes.
func (g *generator) destination() string {
	d := ""
	g.do([]choice{
		{8, func() { d = "/w/" + g.path(3) }},
		{4, func() { d = g.path(2) }},
		{1, func() { d = "/" + g.pick("w", "new", "tmp", "etc", "bin", "dev/x") }},
		{1, func() {
			d = g.pick(".", "./", "/", "..", "../"+g.name(), "/w/./"+g.name(), "/w/"+g.name()+"/../"+g.name())
		}},
		{1, func() { d = g.pick("$D", "$E", "${E}/"+g.name(), "${F:-/w}/x", "/w/$D", "/$NONE/"+g.name()) }},
		{1, func() {
			if l := g.imageTree.ofKind("symlink"); len(l) > 0 {
				d = "/" + g.pick(l...)
				return
			}
			d = "/w/l"
		}},
	})
	if g.chance(35) && !strings.HasSuffix(d, "/") {
		d += "/"
	}
	return d
}

// copyFlags are those of COPY and ADD.
func (g *generator) copyFlags() string {
	flags := ""
	if g.chance(18) {
		flags += " --chown=" + g.pick("1:2", "alice", "bob:staff", "1000", "root:audio", "$U", "${U:-5}:6", "0:0", "nobody", "alice:77")
	}
	if g.chance(18) {
		flags += " --chmod=" + g.pick("0700", "755", "4755", "1777", "u+rwX,go-w", "a=r", "g+s", "644", "${M:-600}", "u=rwx,go=", "+x", "2644")
	}
	if g.chance(12) {
		flags += " --link"
	}
	return flags
}

// excludes are some --exclude.
func (g *generator) excludes() string {
	flags := ""
	if g.chance(18) {
		for range g.upTo(1, 3) {
			flags += " --exclude=" + strings.ReplaceAll(g.pattern(), " ", "")
		}
	}
	return flags
}

// pivot marks a place in a source of --parents, and puts in "**".
func (g *generator) pivot(s string) string {
	parts := strings.Split(s, "/")
	if g.chance(25) {
		parts[g.IntN(len(parts))] = "**"
	}
	if g.chance(40) {
		parts = slices.Insert(parts, g.IntN(len(parts)), ".")
	}
	return strings.Join(parts, "/")
}

// contextSource is a source in the context, usually one that is there.
func (g *generator) contextSource() string {
	s := g.path(2)
	if paths := g.files.paths(); len(paths) > 0 && g.chance(85) {
		s = g.pick(paths...)
	}
	return g.decorate(s)
}

// decorate spells a path in other ways, with wildcards for instance.
func (g *generator) decorate(s string) string {
	parts := strings.Split(s, "/")
	if g.chance(25) {
		i := g.IntN(len(parts))
		name := []rune(parts[i])
		first, last := string(name[:1]), string(name[len(name)-1:])
		parts[i] = g.pick("*", "?", "[a-c]", "*"+last, parts[i]+"*", "[^b]", first+"*")
	}
	if g.chance(5) {
		parts = append(parts, "*")
	}
	s = strings.Join(parts, "/")
	switch {
	case g.chance(8):
		s += "/"
	case g.chance(4):
		s += "/."
	case g.chance(2):
		s += "/.."
	}
	switch {
	case g.chance(8):
		s = "/" + strings.TrimPrefix(s, "/")
	case g.chance(6):
		s = "./" + s
	case g.chance(2):
		s = "../" + s
	case g.chance(6):
		s = g.pick(".", "*", "/", "./", "$D", "**", "*/*")
	}
	return s
}

// copyContext copies from the context.
func (g *generator) copyContext(name string) {
	n := 1
	if g.chance(20) {
		n = g.upTo(2, 3)
	}
	parents := name == "COPY" && g.chance(22)
	sources := make([]string, n)
	for i := range sources {
		sources[i] = g.contextSource()
		if parents {
			sources[i] = g.pivot(sources[i])
		}
	}
	dest := g.destination()
	if n > 1 && g.chance(90) && !strings.HasSuffix(dest, "/") {
		dest += "/"
	}
	flags := g.copyFlags() + g.excludes()
	if parents {
		flags += " --parents"
	}
	g.copyLine(name+flags, append(sources, dest))
}

func (g *generator) copyLine(head string, words []string) {
	if g.chance(10) {
		for i := range words {
			words[i] = `"` + words[i] + `"`
		}
		g.w.line(dockerfile, "%s [%s]", head, strings.Join(words, ", "))
		return
	}
	g.w.line(dockerfile, "%s %s", head, strings.Join(words, " "))
}

func (g *generator) addArchive() {
	sources := []string{g.pick(g.archives...)}
	if g.chance(10) {
		sources = append(sources, g.contextSource())
	}
	flags := g.copyFlags()
	flags += g.excludes()
	if g.chance(25) {
		flags += " --unpack=" + g.pick("true", "false")
	}
	dest := g.destination()
	if len(sources) > 1 && !strings.HasSuffix(dest, "/") {
		dest += "/"
	}
	g.copyLine("ADD"+flags, append(sources, dest))
}

// copyFrom copies from an earlier stage or from the image.
func (g *generator) copyFrom() {
	from := g.pick(g.earlier()...)
	if g.hasImage && g.chance(15) {
		from = imageName
	}
	var source string
	g.do([]choice{
		{8, func() { source = g.decorate("w/" + g.path(2)) }},
		{4, func() { source = "/w/" }},
		{2, func() { source = "/" }},
		{2, func() { source = "/w/*" }},
		{2, func() { source = g.path(2) }},
		{4, func() {
			source = "/w"
			if paths := g.imageTree.paths(); len(paths) > 0 {
				source = "/" + g.pick(paths...)
			}
		}},
	})
	flags := g.copyFlags() + g.excludes()
	if g.chance(22) {
		flags += " --parents"
		source = g.pivot(source)
	}
	g.copyLine("COPY --from="+from+flags, []string{source, g.destination()})
}

func (g *generator) copyHeredoc() {
	head := "COPY" + g.copyFlags() + " <<EOF " + g.destination()
	g.w.heredoc(head, []string{g.pick("text", "$D", "a  b"), "end"})
}
