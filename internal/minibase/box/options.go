package main

import (
	"fmt"
	"strconv"
	"strings"
)

// options are the parsed options of a tool, by short name; options without a value hold "".
type options map[string][]string

// has says whether any of the names was given.
func (o options) has(names ...string) bool {
	for _, n := range names {
		if _, ok := o[n]; ok {
			return true
		}
	}
	return false
}

// last is the last value given for name, or def.
func (o options) last(name, def string) string {
	if v := o[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return def
}

// number is last as a number.
func (o options) number(name string, def int64) (int64, error) {
	if !o.has(name) {
		return def, nil
	}
	n, err := strconv.ParseInt(strings.TrimPrefix(o.last(name, ""), "+"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid number %q", o.last(name, ""))
	}
	return n, nil
}

// optionSpec is a tool's options: words like "r" (a switch), "m:" (with a value),
// "r/recursive" and "m:/mode" (with a long name).
type optionSpec struct {
	short map[byte]bool
	long  map[string]string
}

func parseSpec(spec string) optionSpec {
	s := optionSpec{short: map[byte]bool{}, long: map[string]string{}}
	for _, word := range strings.Fields(spec) {
		short, long, _ := strings.Cut(word, "/")
		s.short[short[0]] = strings.HasSuffix(short, ":")
		if long != "" {
			s.long[long] = short[:1]
		}
	}
	return s
}

// getopt splits args into options and operands, which may come in any order; "--" ends the options.
func getopt(args []string, spec string) (options, []string, error) {
	return parseSpec(spec).parse(args, true)
}

// getoptPrefix stops at the first operand, for tools that run a command.
func getoptPrefix(args []string, spec string) (options, []string, error) {
	return parseSpec(spec).parse(args, false)
}

func (s optionSpec) parse(args []string, mixed bool) (options, []string, error) {
	o := options{}
	var rest []string
	for len(args) > 0 {
		a := args[0]
		args = args[1:]
		switch {
		case a == "--":
			return o, append(rest, args...), nil
		case strings.HasPrefix(a, "--"):
			used, err := s.longOption(o, a[2:], args)
			if err != nil {
				return nil, nil, err
			}
			args = args[used:]
		case len(a) > 1 && a[0] == '-':
			used, err := s.cluster(o, a[1:], args)
			if err != nil {
				return nil, nil, err
			}
			args = args[used:]
		case mixed:
			rest = append(rest, a)
		default:
			return o, append([]string{a}, args...), nil
		}
	}
	return o, rest, nil
}

func (s optionSpec) longOption(o options, text string, args []string) (used int, err error) {
	name, value, given := strings.Cut(text, "=")
	short, ok := s.long[name]
	if !ok {
		return 0, fmt.Errorf("unknown option --%s", name)
	}
	if s.short[short[0]] && !given {
		if len(args) == 0 {
			return 0, fmt.Errorf("option --%s needs a value", name)
		}
		value, used = args[0], 1
	}
	o[short] = append(o[short], value)
	return used, nil
}

func (s optionSpec) cluster(o options, text string, args []string) (used int, err error) {
	for i := 0; i < len(text); i++ {
		name := text[i : i+1]
		wants, ok := s.short[text[i]]
		if !ok {
			return 0, fmt.Errorf("unknown option -%s", name)
		}
		if !wants {
			o[name] = append(o[name], "")
			continue
		}
		if value := text[i+1:]; value != "" {
			o[name] = append(o[name], value)
			return 0, nil
		}
		if len(args) == 0 {
			return 0, fmt.Errorf("option -%s needs a value", name)
		}
		o[name] = append(o[name], args[0])
		return 1, nil
	}
	return 0, nil
}
