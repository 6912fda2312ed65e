package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

func textApplets() map[string]applet {
	return map[string]applet{
		"cat": cat, "head": head, "tail": tail, "wc": wc, "sort": sortLines, "uniq": uniq, "cut": cut, "tr": tr,
		"tee": tee, "seq": seq, "sha256sum": sum, "md5sum": sum, "cmp": compare, "diff": compare, "xxd": xxd,
		"base64": base64Tool, "grep": grep, "egrep": grep, "fgrep": grep, "sed": sed, "rev": rev,
	}
}

func cat(w *world, args []string) error {
	_, rest, err := getopt(args, "u")
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		_, err := io.Copy(w.out, r)
		return err
	})
}

// countArgs turns the old form "-5" into "-n 5".
func countArgs(args []string) []string {
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' && args[0][1] >= '0' && args[0][1] <= '9' {
		return append([]string{"-n", args[0][1:]}, args[1:]...)
	}
	return args
}

func head(w *world, args []string) error {
	o, rest, err := getopt(countArgs(args), "n: c: q")
	if err != nil {
		return err
	}
	lines, err := o.number("n", 10)
	if err != nil {
		return err
	}
	size, err := o.number("c", -1)
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		if size >= 0 {
			_, err := io.CopyN(w.out, r, size)
			return ignoreEOF(err)
		}
		br := bufio.NewReader(r)
		for range lines {
			line, err := br.ReadBytes('\n')
			if _, werr := w.out.Write(line); err != nil || werr != nil {
				return errors.Join(ignoreEOF(err), werr)
			}
		}
		return nil
	})
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

func tail(w *world, args []string) error {
	o, rest, err := getopt(countArgs(args), "n: c: q")
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if o.has("c") {
			n, err := o.number("c", 0)
			if err != nil {
				return err
			}
			_, err = w.out.Write(data[max(0, int64(len(data))-n):])
			return err
		}
		n, err := o.number("n", 10)
		if err != nil {
			return err
		}
		lines := bytes.SplitAfter(data, []byte("\n"))
		if len(lines[len(lines)-1]) == 0 {
			lines = lines[:len(lines)-1]
		}
		from := max(0, int64(len(lines))-n)
		if strings.HasPrefix(o.last("n", ""), "+") {
			from = min(max(0, n-1), int64(len(lines)))
		}
		_, err = w.out.Write(bytes.Join(lines[from:], nil))
		return err
	})
}

func wc(w *world, args []string) error {
	o, rest, err := getopt(args, "l/lines w/words c/bytes m/chars")
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(name string, r io.Reader) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		var cols []string
		add := func(n int) { cols = append(cols, strconv.Itoa(n)) }
		all := !o.has("l", "w", "c", "m")
		if all || o.has("l") {
			add(bytes.Count(data, []byte("\n")))
		}
		if all || o.has("w") {
			add(len(bytes.Fields(data)))
		}
		if o.has("m") {
			add(utf8.RuneCount(data))
		}
		if all || o.has("c") {
			add(len(data))
		}
		if name != "-" {
			cols = append(cols, name)
		}
		_, err = fmt.Fprintln(w.out, strings.Join(cols, " "))
		return err
	})
}

// readLines reads all lines of all inputs.
func (w *world) readLines(names []string) (lines []string, err error) {
	err = w.eachInput(names, func(_ string, r io.Reader) error {
		return eachLine(r, func(l string) error {
			lines = append(lines, l)
			return nil
		})
	})
	return lines, err
}

func (w *world) writeLines(lines []string) error {
	for _, l := range lines {
		if _, err := fmt.Fprintln(w.out, l); err != nil {
			return err
		}
	}
	return nil
}

func sortLines(w *world, args []string) error {
	o, rest, err := getopt(args, "n r u k: t: o: s z f V")
	if err != nil {
		return err
	}
	lines, err := w.readLines(rest)
	if err != nil {
		return err
	}
	field, _ := strconv.Atoi(strings.FieldsFunc(o.last("k", "0"), func(r rune) bool { return r < '0' || r > '9' })[0])
	key := func(l string) string {
		if field == 0 {
			return l
		}
		parts := strings.Fields(l)
		if o.has("t") {
			parts = strings.Split(l, o.last("t", ""))
		}
		if field > len(parts) {
			return ""
		}
		return parts[field-1]
	}
	numeric := o.has("n") || strings.HasSuffix(o.last("k", ""), "n")
	less := func(a, b string) bool {
		ka, kb := key(a), key(b)
		if na, nb := leadingNumber(ka), leadingNumber(kb); numeric && na != nb {
			return na < nb
		}
		if ka != kb && !numeric {
			return ka < kb
		}
		return a < b
	}
	sort.SliceStable(lines, func(i, j int) bool {
		if o.has("r") {
			i, j = j, i
		}
		return less(lines[i], lines[j])
	})
	if o.has("u") {
		lines = compact(lines)
	}
	if name := o.last("o", ""); name != "" {
		return os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o666)
	}
	return w.writeLines(lines)
}

func leadingNumber(s string) float64 {
	s = strings.TrimSpace(s)
	end := 0
	for end < len(s) && (s[end] >= '0' && s[end] <= '9' || s[end] == '.' || end == 0 && s[end] == '-') {
		end++
	}
	f, _ := strconv.ParseFloat(s[:end], 64) // no number counts as 0
	return f
}

func compact(lines []string) []string {
	var out []string
	for i, l := range lines {
		if i == 0 || l != lines[i-1] {
			out = append(out, l)
		}
	}
	return out
}

func uniq(w *world, args []string) error {
	o, rest, err := getopt(args, "c/count d u")
	if err != nil {
		return err
	}
	lines, err := w.readLines(rest)
	if err != nil {
		return err
	}
	for i := 0; i < len(lines); {
		n := 1
		for i+n < len(lines) && lines[i+n] == lines[i] {
			n++
		}
		switch {
		case o.has("d") && n == 1, o.has("u") && n > 1:
		case o.has("c"):
			fmt.Fprintf(w.out, "%7d %s\n", n, lines[i])
		default:
			fmt.Fprintln(w.out, lines[i])
		}
		i += n
	}
	return nil
}

// ranges parses "1,3-5,7-" and says whether n is in it.
func ranges(list string) func(n int) bool {
	return func(n int) bool {
		for _, r := range strings.Split(list, ",") {
			from, to, isRange := strings.Cut(r, "-")
			a, errA := strconv.Atoi(from)
			b, errB := strconv.Atoi(to)
			if !isRange {
				b, errB = a, errA
			}
			if (errA != nil || n >= a) && (errB != nil || n <= b) {
				return true
			}
		}
		return false
	}
}

func cut(w *world, args []string) error {
	o, rest, err := getopt(args, "d:/delimiter f:/fields c:/characters b: s")
	if err != nil {
		return err
	}
	in := ranges(o.last("f", o.last("c", o.last("b", ""))))
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		return eachLine(r, func(l string) error {
			delim := o.last("d", "\t")
			if !o.has("f") {
				delim = ""
			}
			if delim != "" && !strings.Contains(l, delim) {
				if !o.has("s") {
					fmt.Fprintln(w.out, l)
				}
				return nil
			}
			var keep []string
			for i, part := range strings.Split(l, delim) {
				if in(i + 1) {
					keep = append(keep, part)
				}
			}
			_, err := fmt.Fprintln(w.out, strings.Join(keep, delim))
			return err
		})
	})
}

// expandSet expands "a-z", "\n" and the classes of tr.
func expandSet(s string) []rune {
	for _, c := range [][2]string{{"[:lower:]", "a-z"}, {"[:upper:]", "A-Z"}, {"[:digit:]", "0-9"}, {"[:alpha:]", "A-Za-z"}, {"[:alnum:]", "A-Za-z0-9"}, {"[:space:]", " \t\n\v\f\r"}, {`\n`, "\n"}, {`\t`, "\t"}, {`\0`, "\x00"}, {`\\`, `\`}} {
		s = strings.ReplaceAll(s, c[0], c[1])
	}
	in := []rune(s)
	var out []rune
	for i := 0; i < len(in); i++ {
		if i+2 < len(in) && in[i+1] == '-' && in[i] <= in[i+2] {
			for c := in[i]; c <= in[i+2]; c++ {
				out = append(out, c)
			}
			i += 2
			continue
		}
		out = append(out, in[i])
	}
	return out
}

func tr(w *world, args []string) error {
	o, rest, err := getoptPrefix(args, "d s c C")
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("needs a set")
	}
	from := expandSet(rest[0])
	var to []rune
	if len(rest) > 1 {
		to = expandSet(rest[1])
	}
	index := map[rune]int{}
	for i, c := range from {
		index[c] = i
	}
	complement := o.has("c", "C")
	br := bufio.NewReader(w.in)
	last := rune(-1)
	for {
		c, _, err := br.ReadRune()
		if err != nil {
			return ignoreEOF(err)
		}
		i, found := index[c]
		hit := found != complement
		if hit && o.has("d") {
			continue
		}
		if hit && len(to) > 0 {
			if complement || i >= len(to) {
				i = len(to) - 1
			}
			c = to[i]
		}
		if hit && o.has("s") && c == last {
			continue
		}
		last = c
		if !hit {
			last = -1
		}
		fmt.Fprint(w.out, string(c))
	}
}

func tee(w *world, args []string) (err error) {
	o, rest, err := getopt(args, "a/append")
	if err != nil {
		return err
	}
	outs := []io.Writer{w.out}
	for _, name := range rest {
		flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
		if o.has("a") {
			flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
		}
		f, err := os.OpenFile(name, flags, 0o666)
		if err != nil {
			return err
		}
		defer f.Close()
		outs = append(outs, f)
	}
	_, err = io.Copy(io.MultiWriter(outs...), w.in)
	return err
}

func seq(w *world, args []string) error {
	o, rest, err := getoptPrefix(args, "w s:")
	if err != nil {
		return err
	}
	nums := []int{1, 1, 1}
	pos := map[int][]int{1: {2}, 2: {0, 2}, 3: {0, 1, 2}}[len(rest)]
	if pos == nil {
		return errors.New("needs one to three numbers")
	}
	for i, p := range pos {
		if nums[p], err = strconv.Atoi(rest[i]); err != nil {
			return err
		}
	}
	width := 0
	if o.has("w") {
		width = len(rest[len(rest)-1])
	}
	var out []string
	for n := nums[0]; nums[1] > 0 && n <= nums[2] || nums[1] < 0 && n >= nums[2]; n += nums[1] {
		out = append(out, fmt.Sprintf("%0*d", width, n))
	}
	if len(out) > 0 {
		fmt.Fprintln(w.out, strings.Join(out, o.last("s", "\n")))
	}
	return nil
}

func sum(w *world, args []string) error {
	o, rest, err := getopt(args, "c/check b")
	if err != nil {
		return err
	}
	newHash := sha256.New
	if w.name == "md5sum" {
		newHash = md5.New
	}
	if o.has("c") {
		return checkSums(w, rest, newHash)
	}
	return w.eachInput(rest, func(name string, r io.Reader) error {
		h := newHash()
		_, err := io.Copy(h, r)
		fmt.Fprintf(w.out, "%x  %s\n", h.Sum(nil), name)
		return err
	})
}

func checkSums(w *world, names []string, newHash func() hash.Hash) error {
	lines, err := w.readLines(names)
	if err != nil {
		return err
	}
	return w.each(lines, func(line string) error {
		want, name, _ := strings.Cut(line, " ")
		name = strings.TrimLeft(name, " *")
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		h := newHash()
		h.Write(data)
		if fmt.Sprintf("%x", h.Sum(nil)) != want {
			return fmt.Errorf("%s: FAILED", name)
		}
		_, err = fmt.Fprintf(w.out, "%s: OK\n", name)
		return err
	})
}

// compare says whether two files are equal, as cmp and as "diff -q" do.
func compare(w *world, args []string) error {
	o, rest, err := getopt(args, "s q u")
	if err != nil {
		return err
	}
	if len(rest) != 2 {
		return errors.New("needs two files")
	}
	a, errA := os.ReadFile(rest[0])
	b, errB := os.ReadFile(rest[1])
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if bytes.Equal(a, b) {
		return nil
	}
	if !o.has("s") {
		fmt.Fprintf(w.out, "%s %s differ\n", rest[0], rest[1])
	}
	return exitCode(1)
}

// xxd prints bytes as plain hexadecimal, as "xxd -p -c 0" does.
func xxd(w *world, args []string) error {
	_, rest, err := getopt(args, "p c:")
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		data, err := io.ReadAll(r)
		fmt.Fprintf(w.out, "%x\n", data)
		return err
	})
}

func rev(w *world, args []string) error {
	return w.eachInput(args, func(_ string, r io.Reader) error {
		return eachLine(r, func(l string) error {
			runes := []rune(l)
			for i, j := 0, len(runes)-1; i < j; i, j = i+1, j-1 {
				runes[i], runes[j] = runes[j], runes[i]
			}
			_, err := fmt.Fprintln(w.out, string(runes))
			return err
		})
	})
}

// base64Tool encodes on one line, or decodes with -d.
func base64Tool(w *world, args []string) error {
	o, rest, err := getopt(args, "d/decode D w:/wrap")
	if err != nil {
		return err
	}
	return w.eachInput(rest, func(_ string, r io.Reader) error {
		if o.has("d", "D") {
			_, err := io.Copy(w.out, base64.NewDecoder(base64.StdEncoding, r))
			return err
		}
		data, err := io.ReadAll(r)
		fmt.Fprintln(w.out, base64.StdEncoding.EncodeToString(data))
		return err
	})
}
