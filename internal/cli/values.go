package cli

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// value is a flag's value on one command line: a pflag.Value that keeps what was given as text.
type value struct {
	flag flag
	// given holds every value, in order; it is empty for a flag that was not given.
	given []string
}

var _ pflag.Value = (*value)(nil)

// String is the last value or the default.
func (v *value) String() string {
	if len(v.given) == 0 {
		return v.flag.def
	}
	return v.given[len(v.given)-1]
}

// Type is what the help shows after the name.
func (v *value) Type() string {
	switch v.flag.kind {
	case boolKind:
		return "bool"
	case intKind:
		return "int"
	case durationKind:
		return "duration"
	case multiKind:
		return "multi"
	case kvKind:
		return "key=value"
	case multimapKind:
		return "a=b[;c=d]"
	}
	return "string"
}

// Set checks s by the flag's kind and keeps it.
func (v *value) Set(s string) error {
	var err error
	switch v.flag.kind {
	case boolKind:
		_, err = strconv.ParseBool(s)
	case intKind:
		_, err = strconv.ParseInt(s, 0, 64)
	case durationKind:
		_, err = time.ParseDuration(s)
	case kvKind:
		err = checkPair(s)
	case multimapKind:
		for _, pair := range strings.Split(s, ";") {
			if pair != "" { // kaniko takes an empty map, as a template that is not filled in leaves it
				err = errors.Join(err, checkPair(pair))
			}
		}
	}
	if err != nil {
		return err
	}
	if allowed := v.flag.values; allowed != nil && !slices.Contains(allowed, s) {
		return fmt.Errorf("must be one of %s", strings.TrimPrefix(strings.Join(allowed, ", "), ", "))
	}
	v.given = append(v.given, s)
	return nil
}

func checkPair(s string) error {
	if k, _, ok := strings.Cut(s, "="); !ok || k == "" {
		return fmt.Errorf("expected key=value, got %q", s)
	}
	return nil
}

// isDefault says whether the flag asks for nothing beyond its default.
func (v *value) isDefault() bool {
	switch v.flag.kind {
	case boolKind:
		got, err1 := strconv.ParseBool(v.String())
		def, err2 := strconv.ParseBool(v.flag.def)
		return err1 == nil && err2 == nil && got == def
	case multiKind, kvKind, multimapKind:
		return len(v.given) == 0
	}
	return v.String() == v.flag.def
}

// values are all flags of one command line.
type values struct {
	byName map[string]*value
	// read holds the names that were looked at, so that a test can find flags that nothing uses.
	read map[string]bool
}

func newValues() *values {
	vs := &values{byName: map[string]*value{}, read: map[string]bool{}}
	for _, f := range flags() {
		vs.byName[f.name] = &value{flag: f}
	}
	return vs
}

// register adds all flags to set. An alias shares the value of what it stands for.
func (vs *values) register(set *pflag.FlagSet) { vs.registerSome(set, flags()) }

// registerSome adds some of the flags to set.
func (vs *values) registerSome(set *pflag.FlagSet, some []flag) {
	for _, f := range some {
		v := vs.byName[f.name]
		if f.alias != "" {
			v = vs.byName[f.alias]
		}
		p := set.VarPF(v, f.name, f.short, f.help)
		p.Hidden = f.hidden
		if f.kind == boolKind {
			p.NoOptDefVal = "true"
		}
	}
}

func (vs *values) get(name string) *value {
	v, ok := vs.byName[name]
	if !ok {
		panic("the flag table has no " + name)
	}
	vs.read[name] = true
	return v
}

func (vs *values) str(name string) string    { return vs.get(name).String() }
func (vs *values) list(name string) []string { return vs.get(name).given }

// bool and int cannot fail: Set has checked the text, and a test the defaults.
func (vs *values) bool(name string) bool {
	b, err := strconv.ParseBool(vs.str(name))
	return err == nil && b
}

func (vs *values) int(name string) int {
	n, err := strconv.ParseInt(vs.str(name), 0, 64)
	if err != nil {
		return 0
	}
	return int(n)
}

func (vs *values) duration(name string) time.Duration {
	d, err := time.ParseDuration(vs.str(name))
	if err != nil {
		return 0
	}
	return d
}
