package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hako/test/conformance"
)

// difference says how two results differ; its first line says in what, for shrinking.
// If it need not be exact, it forgives what docs/exactness.md says of COPY --from.
func difference(want, got *conformance.Expectation, exact bool) (string, error) {
	var kinds, lines []string
	add := func(kind string, less []string) {
		if len(less) > 0 {
			kinds, lines = append(kinds, kind), append(lines, less...)
		}
	}
	facts := func(e *conformance.Expectation) map[string]string {
		return map[string]string{"base": e.Base, "layers": fmt.Sprint(e.Layers)}
	}
	add("layers", compareMaps(facts(want), facts(got)))
	w, err := flatten(want)
	if err != nil {
		return "", err
	}
	g, err := flatten(got)
	if err != nil {
		return "", err
	}
	add("configuration", compareMaps(w, g))
	wt, gt := treeMap(want.Tree, exact), treeMap(got.Tree, exact)
	if hasRun(got) {
		forgive(wt, gt)
	}
	tree := compareMaps(wt, gt)
	add("tree"+aspects(wt, gt), tree)
	if len(kinds) == 0 {
		return "", nil
	}
	return "differs in " + strings.Join(kinds, ", ") + ": BuildKit (-), hako (+)\n" + strings.Join(lines, "\n"), nil
}

// flatten turns configuration and history into text by name.
func flatten(e *conformance.Expectation) (map[string]string, error) {
	m := map[string]string{}
	put := func(name string, v any) error {
		b, err := json.Marshal(v)
		m[name] = string(b)
		return err
	}
	for k, v := range e.Config {
		if err := put(k, v); err != nil {
			return nil, fmt.Errorf("encode configuration: %w", err)
		}
	}
	for i, h := range e.History {
		if err := put(fmt.Sprintf("history %d", i), h); err != nil {
			return nil, fmt.Errorf("encode history: %w", err)
		}
	}
	return m, nil
}

// treeMap has the descriptions by path. If they need not be exact, directories have no times,
// and all devices are character devices.
func treeMap(lines []string, exact bool) map[string]string {
	m := map[string]string{}
	for _, l := range lines {
		p, d, _ := strings.Cut(l, ": ")
		switch words := strings.Fields(d); {
		case !exact && words[0] == "dir":
			d = strings.Join(slices.Delete(words, 3, 4), " ")
		case !exact && words[0] == "block":
			d = "char" + strings.TrimPrefix(d, "block")
		}
		m[p] = d
	}
	return m
}

// hasRun says whether there is a RUN among the instructions of a result.
func hasRun(e *conformance.Expectation) bool {
	return slices.ContainsFunc(e.History, func(h any) bool { return strings.Contains(fmt.Sprint(h), "created_by:RUN ") })
}

// forgive drops directories whose time hako moved although nothing happened in them but copying up, which it
// cannot always tell: see docs/exactness.md. It is only for those that RUN has to do with.
func forgive(want, got map[string]string) {
	for p, g := range got {
		words := strings.Fields(g)
		if len(words) < 4 || words[0] != "dir" || words[3] != "now" {
			continue
		}
		w, ok := want[p]
		if !ok {
			delete(got, p)
			continue
		}
		if old := strings.Fields(w); len(old) == len(words) && old[0] == "dir" {
			words[3] = old[3]
			got[p] = strings.Join(words, " ")
		}
	}
}

func compareMaps(want, got map[string]string) []string {
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		w, inWant := want[k]
		g, inGot := got[k]
		if w == g && inWant == inGot {
			continue
		}
		if inWant {
			lines = append(lines, "- "+k+": "+w)
		}
		if inGot {
			lines = append(lines, "+ "+k+": "+g)
		}
	}
	return lines
}

// aspects says of the first path that differs what is not the same.
func aspects(want, got map[string]string) string {
	keys := maps.Clone(want)
	maps.Copy(keys, got)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		w, inWant := want[k]
		g, inGot := got[k]
		switch {
		case w == g:
		case !inWant || w == "gone":
			return " (only hako)"
		case !inGot || g == "gone":
			return " (only BuildKit)"
		case k == logFile:
			return " (what a script says)"
		default:
			return " (" + changedWords(strings.Fields(w), strings.Fields(g)) + ")"
		}
	}
	return ""
}

// changedWords names the first of the words of two descriptions that differ.
func changedWords(w, g []string) string {
	if w[0] != g[0] {
		return w[0] + " " + g[0]
	}
	if w[0] == "file" && !slices.Equal(w[1:3], g[1:3]) {
		return "file, mode or owner"
	}
	if w[0] == "file" {
		return "file, content or time"
	}
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("%s, word %d", w[0], i)
		}
	}
	return w[0] + ", more"
}
