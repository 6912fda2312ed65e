// Command box is the userland of hako's small base image: one static binary that is a POSIX shell
// and, by the name it is called with, the everyday file, text and system tools.
// Tools follow POSIX and GNU where they overlap; an option that a tool does not know is an error.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// world is what a tool sees of the process around it. Working directory and ids are the process's own.
type world struct {
	in       io.Reader
	out, err io.Writer
	// name is what the tool was called as.
	name string
}

// applet runs one tool. An exitCode ends it silently with that code, any other error is printed and becomes 1.
type applet func(w *world, args []string) error

// exitCode is an exit code that needs no message.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

func main() {
	out := bufio.NewWriter(os.Stdout)
	w := &world{in: os.Stdin, out: out, err: os.Stderr}
	code := run(w, os.Args)
	if err := out.Flush(); err != nil && code == 0 {
		code = 1
	}
	os.Exit(code)
}

// run dispatches on the base of args[0]; "box TOOL …" works too.
func run(w *world, args []string) int {
	name := strings.TrimPrefix(filepath.Base(args[0]), "-")
	all := applets()
	if all[name] == nil && len(args) > 1 {
		args = args[1:]
		name = args[0]
	}
	tool := all[name]
	if tool == nil {
		names := make([]string, 0, len(all))
		for n := range all {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(w.err, "%s: no such tool; there are: %s\n", name, strings.Join(names, " "))
		return 127
	}
	w.name = name
	err := tool(w, args[1:])
	var code exitCode
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(w.err, "%s: %v\n", name, err)
	return 1
}

// applets lists every tool by name.
func applets() map[string]applet {
	m := map[string]applet{}
	for _, group := range []map[string]applet{shellApplets(), fileApplets(), attrApplets(), textApplets(), systemApplets(), archiveApplets()} {
		for name, a := range group {
			m[name] = a
		}
	}
	return m
}

// flush writes out what w holds back, for tools that start other programs or replace the process.
func (w *world) flush() {
	if f, ok := w.out.(*bufio.Writer); ok {
		_ = f.Flush() // main's own flush reports a broken output
	}
}

// each calls fn for every argument, prints its errors and goes on; the result is exitCode 1 if one failed.
func (w *world) each(args []string, fn func(arg string) error) error {
	var code error
	for _, a := range args {
		if err := fn(a); err != nil {
			fmt.Fprintf(w.err, "%s: %v\n", w.name, err)
			code = exitCode(1)
		}
	}
	return code
}

// eachInput calls fn with every named file, or standard input for none and for "-".
func (w *world) eachInput(names []string, fn func(name string, r io.Reader) error) error {
	if len(names) == 0 {
		names = []string{"-"}
	}
	return w.each(names, func(name string) error {
		if name == "-" {
			return fn(name, w.in)
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return fn(name, f)
	})
}

// eachLine calls fn with every line of r, without its line end.
func eachLine(r io.Reader, fn func(line string) error) error {
	br := bufio.NewReader(r)
	for {
		line, err := br.ReadString('\n')
		if line != "" {
			if e := fn(strings.TrimSuffix(line, "\n")); e != nil {
				return e
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
