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

var errBudget = errors.New("the Dockerfile's variables grow beyond 256 MiB")

// budget bounds the memory that a small hostile Dockerfile can ask for by doubling a variable again and again.
type budget struct{ left int }

func newBudget() *budget { return &budget{left: 256 << 20} } // 256 MiB

// spend returns errBudget once more than the budget has been spent.
func (b *budget) spend(n int) error {
	b.left -= n
	if b.left < 0 {
		return errBudget
	}
	return nil
}

// metered are variables whose values count against a budget when they are read. Beyond it they read as empty.
type metered struct {
	*variables
	budget *budget
}

// Get returns the value of key and whether it is set.
func (m metered) Get(key string) (string, bool) {
	s, ok := m.variables.Get(key)
	if m.budget.spend(len(s)) != nil {
		return "", ok
	}
	return s, ok
}
