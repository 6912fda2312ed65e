package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// findEntry is the file that find looks at.
type findEntry struct {
	path  string
	depth int
	st    *syscall.Stat_t
	prune bool
}

// findTest is a part of find's expression.
type findTest func(e *findEntry) bool

// finder is one call of find.
type finder struct {
	w                  *world
	args               []string
	minDepth, maxDepth int
	depthFirst, acts   bool
	dev                uint64
	xdev, failed       bool
	batch              []*batch
}

// batch is a "-exec … +".
type batch struct{ args, files []string }

func find(w *world, args []string) error {
	f := &finder{w: w, maxDepth: 1 << 30}
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") && args[0] != "(" && args[0] != "!" {
		f.args, args = append(f.args, args[0]), args[1:]
	}
	roots := f.args
	if len(roots) == 0 {
		roots = []string{"."}
	}
	f.args = args
	test, err := f.or()
	if err != nil {
		return err
	}
	if len(f.args) > 0 {
		return fmt.Errorf("unexpected %q", f.args[0])
	}
	if !f.acts {
		inner := test
		test = func(e *findEntry) bool { return inner(e) && f.print(e.path, "\n") }
	}
	for _, root := range roots {
		if st, err := statOf(root, false); err == nil {
			f.dev = st.Dev
		}
		f.walk(root, 0, test)
	}
	for _, b := range f.batch {
		if len(b.files) > 0 && execute(w, append(b.args, b.files...)) != nil {
			f.failed = true
		}
	}
	if f.failed {
		return exitCode(1)
	}
	return nil
}

func (f *finder) print(s, end string) bool {
	fmt.Fprint(f.w.out, s+end)
	return true
}

func (f *finder) walk(path string, depth int, test findTest) {
	st, err := statOf(path, false)
	if err != nil {
		fmt.Fprintf(f.w.err, "find: %v\n", err)
		f.failed = true
		return
	}
	e := &findEntry{path: path, depth: depth, st: st}
	if !f.depthFirst && depth >= f.minDepth {
		test(e)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR && !e.prune && depth < f.maxDepth && (!f.xdev || st.Dev == f.dev) {
		entries, err := os.ReadDir(path)
		if err != nil {
			fmt.Fprintf(f.w.err, "find: %v\n", err)
			f.failed = true
		}
		for _, d := range entries {
			f.walk(strings.TrimSuffix(path, "/")+"/"+d.Name(), depth+1, test)
		}
	}
	if f.depthFirst && depth >= f.minDepth {
		test(e)
	}
}

func (f *finder) next() string {
	if len(f.args) == 0 {
		return ""
	}
	a := f.args[0]
	f.args = f.args[1:]
	return a
}

func (f *finder) or() (findTest, error) {
	left, err := f.and()
	for err == nil && len(f.args) > 0 && (f.args[0] == "-o" || f.args[0] == "-or") {
		f.next()
		var right findTest
		a := left
		right, err = f.and()
		left = func(e *findEntry) bool { return a(e) || right(e) }
	}
	return left, err
}

func (f *finder) and() (findTest, error) {
	left := func(*findEntry) bool { return true }
	for len(f.args) > 0 && f.args[0] != "-o" && f.args[0] != "-or" && f.args[0] != ")" {
		if f.args[0] == "-a" || f.args[0] == "-and" {
			f.next()
			continue
		}
		right, err := f.primary()
		if err != nil {
			return nil, err
		}
		a := left
		left = func(e *findEntry) bool { return a(e) && right(e) }
	}
	return left, nil
}

func (f *finder) primary() (findTest, error) {
	switch op := f.next(); op {
	case "!", "-not":
		t, err := f.primary()
		return func(e *findEntry) bool { return !t(e) }, err
	case "(":
		t, err := f.or()
		if f.next() != ")" {
			return nil, errors.New("missing )")
		}
		return t, err
	case "-xdev", "-mount":
		f.xdev = true
		return func(*findEntry) bool { return true }, nil
	case "-depth":
		f.depthFirst = true
		return func(*findEntry) bool { return true }, nil
	case "-print", "-print0", "-delete", "-prune", "-exec", "-quit", "-ls", "-printf":
		return f.action(op)
	case "-empty":
		return isEmpty, nil
	case "-nouser":
		return func(e *findEntry) bool { return userName(e.st.Uid) == "UNKNOWN" }, nil
	case "-true":
		return func(*findEntry) bool { return true }, nil
	case "-maxdepth", "-mindepth":
		n, err := strconv.Atoi(f.next())
		if op == "-maxdepth" {
			f.maxDepth = n
		} else {
			f.minDepth = n
		}
		return func(*findEntry) bool { return true }, err
	default:
		return f.property(op, f.next())
	}
}

func isEmpty(e *findEntry) bool {
	if e.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		entries, err := os.ReadDir(e.path)
		return err == nil && len(entries) == 0
	}
	return e.st.Mode&unix.S_IFMT == unix.S_IFREG && e.st.Size == 0
}

func (f *finder) property(op, arg string) (findTest, error) {
	switch op {
	case "-name", "-iname", "-path":
		return func(e *findEntry) bool {
			name := filepath.Base(e.path)
			switch op {
			case "-path":
				return globPath(arg, e.path)
			case "-iname":
				name, arg = strings.ToLower(name), strings.ToLower(arg)
			}
			ok, err := filepath.Match(arg, name)
			return err == nil && ok
		}, nil
	case "-type":
		return func(e *findEntry) bool {
			return strings.Contains(arg, strings.Replace(modeString(e.st.Mode)[:1], "-", "f", 1))
		}, nil
	case "-user", "-group":
		id, err := lookupID(arg, op == "-user")
		return func(e *findEntry) bool {
			if op == "-user" {
				return int(e.st.Uid) == id
			}
			return int(e.st.Gid) == id
		}, err
	case "-newer":
		ref, err := os.Stat(arg)
		return func(e *findEntry) bool { return time.Unix(e.st.Mtim.Sec, e.st.Mtim.Nsec).After(ref.ModTime()) }, err
	case "-perm":
		return permTest(arg)
	case "-links", "-size", "-uid", "-gid", "-inum":
		return numberTest(op, arg)
	}
	return nil, fmt.Errorf("unknown predicate %q", op)
}

// globPath matches a whole path; * crosses slashes, as find's -path does.
func globPath(pattern, path string) bool {
	ok, err := filepath.Match(strings.ReplaceAll(pattern, "/", "\x01"), strings.ReplaceAll(path, "/", "\x01"))
	return err == nil && ok
}

func permTest(arg string) (findTest, error) {
	kind := ""
	if arg != "" && strings.Contains("-/", arg[:1]) {
		kind, arg = arg[:1], arg[1:]
	}
	mode, err := applyMode(0, arg)
	return func(e *findEntry) bool {
		have := e.st.Mode & 0o7777
		switch kind {
		case "-":
			return have&mode == mode
		case "/":
			return have&mode != 0
		}
		return have == mode
	}, err
}

func numberTest(op, arg string) (findTest, error) {
	sign := ""
	if arg != "" && strings.Contains("+-", arg[:1]) {
		sign, arg = arg[:1], arg[1:]
	}
	unit := int64(1)
	if op == "-size" {
		unit = 512
		if n := strings.TrimRight(arg, "ckMG"); n != arg {
			unit = map[string]int64{"c": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}[arg[len(n):]]
			arg = n
		}
	}
	want, err := strconv.ParseInt(arg, 10, 64)
	return func(e *findEntry) bool {
		have := map[string]int64{"-links": int64(e.st.Nlink), "-size": (e.st.Size + unit - 1) / unit, "-uid": int64(e.st.Uid), "-gid": int64(e.st.Gid), "-inum": int64(e.st.Ino)}[op]
		switch sign {
		case "+":
			return have > want
		case "-":
			return have < want
		}
		return have == want
	}, err
}

func (f *finder) action(op string) (findTest, error) {
	f.acts = op != "-prune" || f.acts
	switch op {
	case "-print":
		return func(e *findEntry) bool { return f.print(e.path, "\n") }, nil
	case "-print0":
		return func(e *findEntry) bool { return f.print(e.path, "\x00") }, nil
	case "-prune":
		return func(e *findEntry) bool { e.prune = true; return true }, nil
	case "-ls":
		return func(e *findEntry) bool { lsLine(f.w, options{"l": nil}, e.path, e.path); return true }, nil
	case "-delete":
		f.depthFirst = true
		return func(e *findEntry) bool {
			err := os.Remove(e.path)
			f.failed = f.failed || err != nil && !errors.Is(err, fs.ErrNotExist)
			return err == nil
		}, nil
	case "-printf":
		return f.printf(f.next()), nil
	case "-exec":
		return f.exec()
	}
	return nil, fmt.Errorf("unknown action %q", op)
}

// printf knows %p %P-less paths and stat's words: %m mode, %u %g %U %G owner, %s size, %y type, %l link, %T@ mtime, %n links.
func (f *finder) printf(format string) findTest {
	return func(e *findEntry) bool {
		link, _ := os.Readlink(e.path) // empty for what is no link
		kind := strings.Replace(modeString(e.st.Mode)[:1], "-", "f", 1)
		r := strings.NewReplacer("%p", e.path, "%f", filepath.Base(e.path), "%m", strconv.FormatUint(uint64(e.st.Mode&0o7777), 8),
			"%U", fmt.Sprint(e.st.Uid), "%G", fmt.Sprint(e.st.Gid), "%u", userName(e.st.Uid), "%g", groupName(e.st.Gid),
			"%s", fmt.Sprint(e.st.Size), "%y", kind, "%l", link, "%T@", fmt.Sprint(e.st.Mtim.Sec), "%n", fmt.Sprint(e.st.Nlink),
			"%M", modeString(e.st.Mode), "%%", "%", `\n`, "\n", `\t`, "\t", `\0`, "\x00")
		return f.print(r.Replace(format), "")
	}
}

func (f *finder) exec() (findTest, error) {
	var command []string
	for {
		if len(f.args) == 0 {
			return nil, errors.New("-exec without ; or +")
		}
		a := f.next()
		if a == ";" {
			break
		}
		if a == "+" && len(command) > 0 && command[len(command)-1] == "{}" {
			b := &batch{args: command[:len(command)-1]}
			f.batch = append(f.batch, b)
			return func(e *findEntry) bool { b.files = append(b.files, e.path); return true }, nil
		}
		command = append(command, a)
	}
	return func(e *findEntry) bool {
		args := make([]string, len(command))
		for i, a := range command {
			args[i] = strings.ReplaceAll(a, "{}", e.path)
		}
		return execute(f.w, args) == nil
	}, nil
}
