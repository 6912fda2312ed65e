package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func shellApplets() map[string]applet {
	return map[string]applet{
		"sh": sh, "bash": sh,
		"expr": expr, "echo": builtin, "printf": builtin, "test": builtin, "[": builtin, "true": builtin, "false": builtin,
	}
}

// sh is the shell: sh [-abefnuvx] [-o option] [-c command [name [argument…]] | file [argument…]].
func sh(w *world, args []string) error {
	inv, err := parseInvocation(w, args)
	if err != nil {
		return err
	}
	if c, ok := inv.script.(io.Closer); ok && inv.script != w.in {
		defer c.Close()
	}
	prog, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(inv.script, inv.name)
	if err != nil {
		fmt.Fprintf(w.err, "sh: %v\n", err)
		return exitCode(2)
	}
	return interpret(w, prog, append(inv.options, append([]string{"--"}, inv.params...)...))
}

// invocation is how the shell was called.
type invocation struct {
	script  io.Reader
	name    string
	options []string
	params  []string
}

func parseInvocation(w *world, args []string) (*invocation, error) {
	inv := &invocation{name: w.name}
	command := false
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		a := args[0]
		args = args[1:]
		if a == "--" {
			break
		}
		if strings.HasPrefix(a, "--") {
			return nil, fmt.Errorf("unknown option %s", a)
		}
		var err error
		if args, err = inv.cluster(a, args, &command); err != nil {
			return nil, err
		}
	}
	switch {
	case command && len(args) == 0:
		return nil, errors.New("option -c needs a value")
	case command:
		inv.script = strings.NewReader(args[0])
		if len(args) > 1 {
			inv.name, inv.params = args[1], args[2:]
		}
	case len(args) > 0:
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		inv.script, inv.name, inv.params = f, args[0], args[1:]
	default:
		inv.script = w.in
	}
	return inv, nil
}

// cluster takes one word of options, such as "-exc" or "-o".
func (inv *invocation) cluster(word string, args []string, command *bool) ([]string, error) {
	for _, c := range word[1:] {
		switch c {
		case 'c':
			*command = true
		case 'l', 'i', 's': // login, interactive, from standard input: nothing differs here
		case 'o':
			if len(args) == 0 {
				return nil, errors.New("option -o needs a value")
			}
			inv.options = append(inv.options, word[:1]+"o", args[0])
			args = args[1:]
		default:
			inv.options = append(inv.options, word[:1]+string(c))
		}
	}
	return args, nil
}

func interpret(w *world, prog *syntax.File, params []string) error {
	env := os.Environ()
	if os.Getenv("PATH") == "" {
		env = append(env, "PATH="+defaultPath)
	}
	r, err := interp.New(
		interp.Env(expand.ListEnviron(env...)),
		interp.StdIO(w.in, unbuffered(w), w.err),
		interp.Params(params...),
		interp.CallHandler(external),
	)
	if err != nil {
		return err
	}
	err = r.Run(context.Background(), prog)
	var status interp.ExitStatus
	if errors.As(err, &status) {
		return exitCode(status)
	}
	return err
}

// unbuffered is standard output as the shell and its children share it.
func unbuffered(w *world) io.Writer {
	w.flush()
	if w.in == os.Stdin {
		return os.Stdout
	}
	return w.out
}

// external makes up for the builtins that the interpreter only knows by name.
func external(ctx context.Context, args []string) ([]string, error) {
	switch args[0] {
	case "kill":
		return append([]string{"/bin/kill"}, args[1:]...), nil
	case "ulimit":
		return []string{"true"}, nil
	case "umask":
		return umask(interp.HandlerCtx(ctx).Stdout, args[1:]), nil
	}
	return args, nil
}

// umask is the process's own; a subshell shares it, unlike in other shells.
func umask(out io.Writer, args []string) []string {
	if len(args) == 0 {
		old := syscall.Umask(0)
		syscall.Umask(old)
		fmt.Fprintf(out, "%04o\n", old)
		return []string{"true"}
	}
	mask, err := strconv.ParseUint(args[0], 8, 12)
	if err != nil {
		return []string{"false"}
	}
	syscall.Umask(int(mask))
	return []string{"true"}
}

// builtin runs one of the shell's own commands as a program.
func builtin(w *world, args []string) error {
	prog, err := syntax.NewParser().Parse(strings.NewReader("'"+w.name+`' "$@"`), w.name)
	if err != nil {
		return err
	}
	return interpret(w, prog, append([]string{"--"}, args...))
}

// expr knows "A op B" with + - * / % = != < > <= >=, "A : PATTERN" and "length A".
func expr(w *world, args []string) error {
	if len(args) == 2 && args[0] == "length" {
		_, err := fmt.Fprintln(w.out, len(args[1]))
		return err
	}
	if len(args) != 3 {
		return errors.New("needs two operands and an operator")
	}
	if args[1] == ":" {
		return exprMatch(w, args[0], args[2])
	}
	a, errA := strconv.Atoi(args[0])
	b, errB := strconv.Atoi(args[2])
	order := strings.Compare(args[0], args[2])
	if errA == nil && errB == nil {
		order = a - b
	}
	results := map[string]int{"=": btoi(order == 0), "!=": btoi(order != 0), "<": btoi(order < 0), ">": btoi(order > 0), "<=": btoi(order <= 0), ">=": btoi(order >= 0), "+": a + b, "-": a - b, "*": a * b}
	if args[1] == "/" || args[1] == "%" {
		if b == 0 {
			return errors.New("division by zero")
		}
		results["/"], results["%"] = a/b, a%b
	}
	n, ok := results[args[1]]
	if !ok || strings.Contains("+-*/%", args[1]) && (errA != nil || errB != nil) {
		return exitCode(2)
	}
	fmt.Fprintln(w.out, n)
	if n == 0 {
		return exitCode(1)
	}
	return nil
}

func exprMatch(w *world, text, pattern string) error {
	re, err := compilePattern("^"+pattern, 0)
	if err != nil {
		return err
	}
	m := re.FindStringSubmatch(text)
	switch {
	case m == nil:
		fmt.Fprintln(w.out, 0)
		return exitCode(1)
	case len(m) > 1:
		fmt.Fprintln(w.out, m[1])
	default:
		fmt.Fprintln(w.out, len(m[0]))
	}
	return nil
}
