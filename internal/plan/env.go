package plan

import (
	"errors"
	"maps"
	"slices"
	"strings"
)

// variables are names and values in the order in which each name was last set, as BuildKit's front end keeps them.
// They answer the lexer's questions.
type variables struct {
	values map[string]variable
	next   int      // sequence number of the next set
	sorted []string // names in order; nil if out of date
}

type variable struct {
	value string
	seq   int
}

func newVariables() *variables { return &variables{values: map[string]variable{}} }

func (v *variables) clone() *variables {
	return &variables{values: maps.Clone(v.values), next: v.next, sorted: v.sorted}
}

func (v *variables) set(key, value string) {
	v.values[key] = variable{value, v.next}
	v.next++
	v.sorted = nil
}

func (v *variables) unset(key string) {
	delete(v.values, key)
	v.sorted = nil
}

// Get returns the value of key and whether it is set.
func (v *variables) Get(key string) (string, bool) {
	x, ok := v.values[key]
	return x.value, ok
}

// Keys returns the names in order. The caller must not change the result.
func (v *variables) Keys() []string {
	if v.sorted == nil {
		v.sorted = slices.SortedFunc(maps.Keys(v.values), func(a, b string) int { return v.values[a].seq - v.values[b].seq })
	}
	return v.sorted
}

// list returns "K=V" in order.
func (v *variables) list() []string {
	out := make([]string, 0, len(v.values))
	for _, k := range v.Keys() {
		out = append(out, k+"="+v.values[k].value)
	}
	return out
}

// splitPair cuts "K=V".
func splitPair(s string) (string, string) {
	k, v, _ := strings.Cut(s, "=")
	return k, v
}

// setPair sets key in a list of "K=V" in place, or appends it.
func setPair(list []string, key, value string) []string {
	for i, s := range list {
		if k, _ := splitPair(s); k == key {
			list[i] = key + "=" + value
			return list
		}
	}
	return append(list, key+"="+value)
}

// lastOfEach keeps the last of several values of one name, as runc does.
func lastOfEach(list []string) []string {
	seen := make(map[string]bool, len(list))
	out := make([]string, 0, len(list))
	for _, s := range slices.Backward(list) {
		if k, _ := splitPair(s); !seen[k] {
			seen[k] = true
			out = append(out, s)
		}
	}
	slices.Reverse(out)
	return out
}

var (
	errBudget = errors.New("the plan of this Dockerfile grows beyond 256 MiB")
	errWord   = errors.New("the variables of one word grow beyond 1 MiB")
)

// budget bounds the memory that a small hostile Dockerfile can ask for, by using a variable again and again,
// by a tower of stages that each repeat what those below have, and so on.
type budget struct{ left int }

func newBudget() *budget { return &budget{left: 256 << 20} } // 256 MiB

// spend returns errBudget once more than the budget has been spent, in bytes.
func (b *budget) spend(n int) error {
	b.left -= n
	if b.left < 0 {
		return errBudget
	}
	return nil
}

// word is what the lexer sees while it expands one word: variables, up to 1 MiB of their values. Beyond it they read as empty.
type word struct {
	*variables
	left int
}

func newWord(v *variables) *word { return &word{variables: v, left: 1 << 20} } // 1 MiB; Linux allows 128 KiB in one variable

// Get returns the value of key and whether it is set.
func (w *word) Get(key string) (string, bool) {
	s, ok := w.variables.Get(key)
	if w.left -= len(s); w.left < 0 {
		return "", ok
	}
	return s, ok
}

// err is errWord if the word was too long.
func (w *word) err() error {
	if w.left < 0 {
		return errWord
	}
	return nil
}
