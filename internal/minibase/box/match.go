package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// dialect says how a pattern is meant.
type dialect uint8

const (
	extended dialect = 1 << iota // brackets group; in a basic pattern, escaped ones do
	foldCase
)

// compilePattern turns a POSIX pattern into a Go one.
func compilePattern(pattern string, d dialect) (*regexp.Regexp, error) {
	if d&extended == 0 {
		pattern = basicToExtended(pattern)
	}
	if d&foldCase != 0 {
		pattern = "(?i)" + pattern
	}
	return regexp.Compile(pattern)
}

func basicToExtended(p string) string {
	var b strings.Builder
	inSet := false
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case inSet:
			inSet = c != ']'
			b.WriteByte(c)
		case c == '[':
			inSet = true
			b.WriteByte(c)
			for i+1 < len(p) && (p[i+1] == ']' || p[i+1] == '^' && i+2 < len(p) && p[i+2] == ']') {
				i++
				b.WriteByte(p[i])
			}
		case c == '\\' && i+1 < len(p):
			i++
			if !strings.ContainsRune("(){}|+?", rune(p[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(p[i])
		case strings.ContainsRune("(){}|+?", rune(c)), c == '*' && i == 0:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// grepper is one call of grep.
type grepper struct {
	w     *world
	o     options
	re    *regexp.Regexp
	names bool
	found bool
}

func grep(w *world, args []string) error {
	o, rest, err := getopt(args, "E F v q i c n r R l L o x w s H h e: m: a")
	if err != nil {
		return grepFailure(w, err)
	}
	patterns := o["e"]
	if len(patterns) == 0 {
		if len(rest) == 0 {
			return grepFailure(w, errors.New("needs a pattern"))
		}
		patterns, rest = rest[:1], rest[1:]
	}
	g := &grepper{w: w, o: o}
	d := extended
	if o.has("i") {
		d |= foldCase
	}
	if g.re, err = compilePattern(g.pattern(patterns), d); err != nil {
		return grepFailure(w, err)
	}
	if o.has("r", "R") {
		rest = filesBelow(rest)
	}
	g.names = !o.has("h") && (len(rest) > 1 || o.has("H", "r", "R"))
	err = w.eachInput(rest, g.input)
	switch {
	case g.found && o.has("q"):
		return nil
	case err != nil:
		return exitCode(2)
	case !g.found:
		return exitCode(1)
	}
	return nil
}

func grepFailure(w *world, err error) error {
	fmt.Fprintf(w.err, "%s: %v\n", w.name, err)
	return exitCode(2)
}

// pattern joins all patterns into one extended pattern.
func (g *grepper) pattern(patterns []string) string {
	var alts []string
	for _, p := range patterns {
		for _, alt := range strings.Split(p, "\n") {
			switch {
			case g.o.has("F") || g.w.name == "fgrep":
				alt = regexp.QuoteMeta(alt)
			case !g.o.has("E") && g.w.name != "egrep":
				alt = basicToExtended(alt)
			}
			alts = append(alts, "(?:"+alt+")")
		}
	}
	p := strings.Join(alts, "|")
	if g.o.has("w") {
		p = `\b(?:` + p + `)\b`
	}
	if g.o.has("x") {
		p = "^(?:" + p + ")$"
	}
	return p
}

func (g *grepper) input(name string, r io.Reader) error {
	count, line := 0, 0
	err := eachLine(r, func(l string) error {
		line++
		if g.re.MatchString(l) == g.o.has("v") {
			return nil
		}
		g.found = true
		count++
		if g.o.has("q", "c", "l", "L") {
			return nil
		}
		prefix := ""
		if g.names {
			prefix = name + ":"
		}
		if g.o.has("n") {
			prefix += strconv.Itoa(line) + ":"
		}
		if !g.o.has("o") {
			_, err := fmt.Fprintln(g.w.out, prefix+l)
			return err
		}
		for _, m := range g.re.FindAllString(l, -1) {
			fmt.Fprintln(g.w.out, prefix+m)
		}
		return nil
	})
	switch {
	case g.o.has("q"):
	case g.o.has("l") && count > 0, g.o.has("L") && count == 0:
		fmt.Fprintln(g.w.out, name)
	case g.o.has("c") && g.names:
		fmt.Fprintf(g.w.out, "%s:%d\n", name, count)
	case g.o.has("c"):
		fmt.Fprintln(g.w.out, count)
	}
	return err
}

// filesBelow lists the regular files below each name, sorted.
func filesBelow(names []string) []string {
	if len(names) == 0 {
		names = []string{"."}
	}
	var files []string
	for _, name := range names {
		_ = filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error { // what cannot be read is opened, and reported, later
			if err != nil || d.Type().IsRegular() {
				files = append(files, path)
			}
			return nil
		})
	}
	return files
}

// sedCommand is one command of a sed script.
type sedCommand struct {
	from, to sedAddress
	negate   bool
	active   bool
	verb     byte
	re       *regexp.Regexp
	text     string
	global   bool
	print    bool
	nth      int
}

// sedAddress is nothing, a line number, the last line ("$") or a pattern.
type sedAddress struct {
	line int
	last bool
	re   *regexp.Regexp
}

func (a sedAddress) none() bool { return a.line == 0 && !a.last && a.re == nil }

func (a sedAddress) matches(line string, n int, last bool) bool {
	return a.line == n && n > 0 || a.last && last || a.re != nil && a.re.MatchString(line)
}

// sed knows the commands s, d, p, q, =, i, a, c and y-less scripts of them.
func sed(w *world, args []string) error {
	o, rest, err := getopt(args, "n e: f: i/in-place E r s")
	if err != nil {
		return err
	}
	scripts := o["e"]
	for _, f := range o["f"] {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		scripts = append(scripts, string(data))
	}
	if len(scripts) == 0 {
		if len(rest) == 0 {
			return errors.New("needs a script")
		}
		scripts, rest = rest[:1], rest[1:]
	}
	p := &sedParser{text: strings.Join(scripts, "\n")}
	if o.has("E", "r") {
		p.dialect = extended
	}
	commands, err := p.parse()
	if err != nil {
		return err
	}
	if !o.has("i") {
		return w.eachInput(rest, func(_ string, r io.Reader) error { return runSed(w.out, r, commands, o.has("n")) })
	}
	return w.each(rest, func(name string) error { return sedFile(name, commands, o.has("n")) })
}

// sedFile edits a file by writing a new one over it, as sed does.
func sedFile(name string, commands []*sedCommand, quiet bool) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := runSed(&out, bytes.NewReader(data), commands, quiet); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".sed")
	if err != nil {
		return err
	}
	_, err = tmp.Write(out.Bytes())
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	st, err := statOf(name, true)
	if err != nil {
		return err
	}
	_ = os.Chown(tmp.Name(), int(st.Uid), int(st.Gid)) // only root can; others keep their own file
	return errors.Join(os.Chmod(tmp.Name(), fi.Mode()), os.Rename(tmp.Name(), name))
}

func runSed(out io.Writer, r io.Reader, commands []*sedCommand, quiet bool) error {
	data, err := io.ReadAll(r)
	if err != nil || len(data) == 0 {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	for i, line := range lines {
		s := &sedLine{out: out, line: line, n: i + 1, last: i == len(lines)-1}
		for _, c := range commands {
			if !s.done && c.selects(s) {
				s.apply(c)
			}
		}
		if !s.deleted && !quiet {
			fmt.Fprintln(out, s.line)
		}
		fmt.Fprint(out, s.after)
		if s.quit {
			return nil
		}
	}
	return nil
}

// sedLine is the line in work.
type sedLine struct {
	out                 io.Writer
	line, after         string
	n                   int
	last                bool
	done, deleted, quit bool
}

func (c *sedCommand) selects(s *sedLine) bool {
	hit := true
	switch {
	case c.from.none():
	case c.to.none():
		hit = c.from.matches(s.line, s.n, s.last)
	case c.active:
		c.active = !c.to.matches(s.line, s.n, s.last) && (c.to.line == 0 || s.n < c.to.line)
	default:
		hit = c.from.matches(s.line, s.n, s.last)
		c.active = hit && (c.to.line == 0 || c.to.line > s.n)
	}
	return hit != c.negate
}

func (s *sedLine) apply(c *sedCommand) {
	switch c.verb {
	case 's':
		s.substitute(c)
	case 'd':
		s.deleted, s.done = true, true
	case 'p':
		fmt.Fprintln(s.out, s.line)
	case '=':
		fmt.Fprintln(s.out, s.n)
	case 'q':
		s.quit, s.done = true, true
	case 'i':
		fmt.Fprintln(s.out, c.text)
	case 'a':
		s.after += c.text + "\n"
	case 'c':
		fmt.Fprintln(s.out, c.text)
		s.deleted, s.done = true, true
	}
}

func (s *sedLine) substitute(c *sedCommand) {
	count, changed := 0, false
	var b strings.Builder
	at := 0
	for _, m := range c.re.FindAllStringSubmatchIndex(s.line, -1) {
		count++
		if count < c.nth {
			continue
		}
		b.WriteString(s.line[at:m[0]])
		b.Write(c.re.ExpandString(nil, c.text, s.line, m))
		at, changed = m[1], true
		if !c.global {
			break
		}
	}
	s.line = b.String() + s.line[at:]
	if changed && c.print {
		fmt.Fprintln(s.out, s.line)
	}
}

// sedParser reads a sed script.
type sedParser struct {
	text    string
	dialect dialect
}

func (p *sedParser) parse() ([]*sedCommand, error) {
	var commands []*sedCommand
	for {
		p.text = strings.TrimLeft(p.text, " \t\n;")
		if p.text == "" {
			return commands, nil
		}
		c, err := p.command()
		if err != nil {
			return nil, err
		}
		commands = append(commands, c)
	}
}

func (p *sedParser) command() (c *sedCommand, err error) {
	c = &sedCommand{nth: 1}
	if c.from, err = p.address(); err != nil {
		return nil, err
	}
	if strings.HasPrefix(p.text, ",") {
		p.text = p.text[1:]
		if c.to, err = p.address(); err != nil {
			return nil, err
		}
	}
	p.text = strings.TrimLeft(p.text, " ")
	if strings.HasPrefix(p.text, "!") {
		c.negate = true
		p.text = strings.TrimLeft(p.text[1:], " ")
	}
	if p.text == "" {
		return nil, errors.New("missing command")
	}
	c.verb = p.text[0]
	p.text = p.text[1:]
	switch c.verb {
	case 'd', 'p', 'q', '=':
		return c, nil
	case 's':
		return c, p.substitution(c)
	case 'i', 'a', 'c':
		text, rest, _ := strings.Cut(p.text, "\n")
		if strings.HasSuffix(text, `\`) {
			text, rest, _ = strings.Cut(rest, "\n")
		}
		c.text, p.text = strings.TrimPrefix(strings.TrimLeft(text, " "), `\`), rest
		return c, nil
	}
	return nil, fmt.Errorf("unknown command %q", c.verb)
}

func (p *sedParser) address() (a sedAddress, err error) {
	switch {
	case strings.HasPrefix(p.text, "$"):
		a.last = true
		p.text = p.text[1:]
	case strings.HasPrefix(p.text, "/"):
		p.text = p.text[1:]
		a.re, err = compilePattern(p.until('/'), p.dialect)
	default:
		end := len(p.text) - len(strings.TrimLeft(p.text, "0123456789"))
		a.line, _ = strconv.Atoi(p.text[:end]) // no digits: no address
		p.text = p.text[end:]
	}
	return a, err
}

// until takes the text up to an unescaped delimiter.
func (p *sedParser) until(delim byte) string {
	var b strings.Builder
	for i := 0; i < len(p.text); i++ {
		switch c := p.text[i]; {
		case c == delim:
			p.text = p.text[i+1:]
			return b.String()
		case c == '\\' && i+1 < len(p.text):
			i++
			if p.text[i] != delim {
				b.WriteByte('\\')
			}
			b.WriteByte(p.text[i])
		default:
			b.WriteByte(c)
		}
	}
	p.text = ""
	return b.String()
}

func (p *sedParser) substitution(c *sedCommand) (err error) {
	if p.text == "" {
		return errors.New("unfinished s command")
	}
	delim := p.text[0]
	p.text = p.text[1:]
	pattern := p.until(delim)
	c.text = replacement(p.until(delim))
	d := p.dialect
	end := len(p.text) - len(strings.TrimLeft(p.text, "gpIi0123456789"))
	for _, f := range p.text[:end] {
		switch {
		case f == 'g':
			c.global = true
		case f == 'p':
			c.print = true
		case f == 'i' || f == 'I':
			d |= foldCase
		default:
			c.nth = int(f - '0')
		}
	}
	p.text = p.text[end:]
	c.re, err = compilePattern(pattern, d)
	return err
}

// replacement turns sed's \1 and & into Go's ${1} and ${0}.
func replacement(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			b.WriteString("$$")
		case c == '&':
			b.WriteString("${0}")
		case c == '\\' && i+1 < len(s):
			i++
			switch {
			case s[i] >= '0' && s[i] <= '9':
				b.WriteString("${" + s[i:i+1] + "}")
			case s[i] == 'n':
				b.WriteByte('\n')
			case s[i] == 't':
				b.WriteByte('\t')
			default:
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
