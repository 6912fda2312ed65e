// Command summary reads the output of go test -json and prints what a person needs: the output of what failed,
// each skipped test with its reason, the closing line of each package, and a count as the last line.
// Its exit code is 1 if anything failed or nothing ran, with -skips also if a test skipped that may not.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is a line of go test -json; see go doc test2json.
type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
}

// key names a test, or a package if Test is empty.
type key struct{ Package, Test string }

// report is what has been read so far.
type report struct {
	output                  map[key][]string
	passed, failed, skipped int
	failures, skips         []string
	// broken are packages that failed without a failed test: they did not build, crashed or ran out of time.
	broken  int
	hasFail map[string]bool
	// allowed match the skips that are no failures; nil allows all.
	allowed []*regexp.Regexp
}

func main() {
	skips := flag.String("skips", "", "`file` of regular expressions, one a line, for the skips that are no failures; # begins a comment")
	flag.Parse()
	allowed, err := readSkips(*skips)
	if err == nil {
		err = run(os.Stdin, os.Stdout, allowed)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// readSkips reads the expressions in file; none is nil.
func readSkips(file string) ([]*regexp.Regexp, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read allowed skips: %w", err)
	}
	allowed := []*regexp.Regexp{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		re, err := regexp.Compile(line)
		if err != nil {
			return nil, fmt.Errorf("read allowed skips: %w", err)
		}
		allowed = append(allowed, re)
	}
	return allowed, nil
}

// run reads r to its end and prints to w; its error says that something failed.
func run(r io.Reader, w io.Writer, allowed []*regexp.Regexp) error {
	rep := &report{output: map[key][]string{}, hasFail: map[string]bool{}, allowed: allowed}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			rep.line(line, w)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read test output: %w", err)
		}
	}
	return rep.close(w)
}

func (r *report) line(line string, w io.Writer) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		fmt.Fprint(w, line) // make, or the go command itself, said something
		return
	}
	k := key{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[k] = append(r.output[k], e.Output)
	case "build-output":
		fmt.Fprint(w, e.Output)
	case "pass", "fail", "skip":
		r.end(e, k, w)
		delete(r.output, k)
	}
}

func (r *report) end(e event, k key, w io.Writer) {
	text := r.output[k]
	if k.Test == "" {
		r.endPackage(e, k, w)
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.hasFail[k.Package] = true
		r.failures = append(r.failures, k.Package+" "+k.Test)
		fmt.Fprint(w, strings.Join(text, ""))
	case "skip":
		r.skipped++
		r.skips = append(r.skips, fmt.Sprintf("%s %s: %s", k.Package, k.Test, reason(text)))
	}
}

// endPackage prints the closing line of a package; all of its output if no test is to blame for a failure.
func (r *report) endPackage(e event, k key, w io.Writer) {
	text := r.output[k]
	if e.Action == "fail" && !r.hasFail[k.Package] {
		r.broken++
		r.failures = append(r.failures, k.Package)
		for open, more := range r.output {
			if open.Package == k.Package && open.Test != "" {
				fmt.Fprint(w, strings.Join(more, "")) // it was running when the package ended
			}
		}
		fmt.Fprint(w, strings.Join(text, ""))
		return
	}
	if len(text) > 0 {
		fmt.Fprint(w, text[len(text)-1])
	}
}

// reason is what a skipped test said, without the name of the file that it said it in.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		if _, rest, ok := strings.Cut(line, ".go:"); ok {
			if _, text, ok := strings.Cut(rest, ": "); ok {
				line = text
			}
		}
		said = append(said, line)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

func (r *report) close(w io.Writer) error {
	list := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		slices.Sort(lines)
		fmt.Fprintf(w, "\n%s:\n", title)
		for _, l := range lines {
			fmt.Fprintf(w, "  %s\n", l)
		}
	}
	list("Skipped", r.skips)
	refused := r.refusedSkips()
	list("Skipped, and may not", refused)
	list("Failed", r.failures)
	failed := r.failed + r.broken
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", r.passed, failed, r.skipped)
	switch {
	case failed > 0 || r.passed == 0:
		return errors.New("not all tests passed")
	case len(refused) > 0:
		return errors.New("tests skipped that may not")
	}
	return nil
}

// refusedSkips are the skips that no expression allows.
func (r *report) refusedSkips() []string {
	if r.allowed == nil {
		return nil
	}
	var refused []string
	for _, s := range r.skips {
		if !slices.ContainsFunc(r.allowed, func(re *regexp.Regexp) bool { return re.MatchString(s) }) {
			refused = append(refused, s)
		}
	}
	return refused
}
