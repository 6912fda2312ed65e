package main

import (
	"strings"
)

// logFile is where scripts write what their commands say.
const logFile = "/log"

// run makes a RUN instruction: a script of operations on files that goes on after errors,
// and that writes down what each operation said.
func (g *generator) run() {
	lines := []string{
		`r() { echo "$*" >>/log; g "$@" >>/log 2>&1; echo "= $?" >>/log; }`,
		`g() { for a in "$@"; do [ -p "$a" ] && return 99; done; case $1 in sh|cp|dd|cat|mknod) timeout 9 "$@" 2>/dev/null;; *) "$@";; esac; }`,
		`w() { echo -n "$1" >"$2"; }`,
		`app() { echo -n "$1" >>"$2"; }`,
		"cd " + g.pick("/w", "/w", "/w", "/w/a", "/tmp", "/"),
	}
	for range g.upTo(2, 14) {
		lines = append(lines, "r "+g.operation())
	}
	head := "RUN <<EOF"
	if g.chance(50) {
		head = "RUN <<'EOF'"
	}
	for i, l := range lines {
		if head == "RUN <<EOF" {
			lines[i] = strings.ReplaceAll(l, "$", `\$`)
		}
	}
	g.w.heredoc(head, append(lines, "true"))
}

// place is a path that a script uses.
func (g *generator) place() string {
	p := g.path(2)
	if paths := g.imageTree.paths(); len(paths) > 0 && g.chance(45) {
		p = "/" + g.pick(paths...)
	}
	if len(g.places) > 0 && g.chance(40) {
		p = g.pick(g.places...)
	}
	if g.chance(6) {
		p = g.pick("/w/"+g.path(3), "/etc/"+g.name(), "/bin/"+g.name(), "/w/", p+"/", "/tmp/"+g.name())
	}
	g.places = append(g.places, p)
	return p
}

//nolint:funlen // one table
func (g *generator) operation() string {
	op, p, q := "", g.place(), g.place()
	set := func(words ...string) func() {
		return func() { op = strings.Join(words, " ") }
	}
	g.do([]choice{
		{8, set("mkdir", p)},
		{6, set("mkdir -p", p)},
		{8, set("w", g.pick("x", "new", "''"), p)},
		{3, set("app", g.pick("x", "more"), p)},
		{8, set("rm -rf", p)},
		{2, set("rm", p)},
		{2, set("rmdir", p)},
		{10, set("mv", p, q)},
		{3, set("cp -a", p, "/tmp/"+g.name())},
		{2, set("cp", p, q)},
		{6, set("ln", p, q)},
		{5, set("ln -s", g.linkTarget(), p)},
		{2, set("ln -sf", g.linkTarget(), p)},
		{5, set("chmod", g.pick(g.fileMode(), g.dirMode(), "u+x", "g-r"), p)},
		{1, set("chmod -R", g.pick("u+rwX", "0700"), p)},
		{4, set("chown", g.owner(), p)},
		{2, set("chown -h", g.owner(), p)},
		{1, set("chown -R", g.owner(), p)},
		{4, set("touch -d", g.time(), p)},
		{1, set("touch -h -d", g.time(), p)},
		{2, set("touch -r", p, q)},
		{2, set("mknod", p, g.pick("c", "b"), g.pick("1 3", "0 0", "259 300", "8 1"))},
		{2, set("mkfifo", p)},
		{2, set("setcap", g.pick("cap_net_bind_service=ep", "cap_setuid=p"), p)},
		{1, set("setfattr -n", g.pick("user.a", "security.capability", "trusted.x", "trusted.overlay.opaque", "user.overlay.opaque"), "-v y", p)},
		{2, set("truncate -s", g.pick("0", "3", "5000", "100000"), p)},
		{2, set("dd if="+p, "of="+q, "bs=1 count=2", g.pick("", "conv=notrunc", "seek=4100"))},
		{2, set("cat", p)},
		{2, set("readlink", p)},
		{2, set("ls -1a", p)},
		{3, set("stat -c '%n %f %u %g'", p)},
		{4, set("sh -c", "'rm -rf "+p+" && mkdir "+p+" && echo n >"+p+"/"+g.name()+"'")},
		{3, set("sh -c", "'rm -rf "+p+"; echo f >"+p+"'")},
		{2, set("sh -c", "'cat "+p+" >/tmp/t; cat /tmp/t >"+p+"; rm /tmp/t'")},
		{2, set("sh -c", "'mv "+p+" "+q+" && mv "+q+" "+p+"'")},
		{2, set("sh -c", "'exec 3>>"+p+"; rm "+p+"; echo x >&3'")},
		{1, set("sh -c", "'umask 077; mkdir "+p+"; echo >"+q+"'")},
	})
	return op
}
