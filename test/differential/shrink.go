package main

import (
	"context"
	"regexp"
	"strings"
)

// fingerprint is what two differences have in common that have the same cause, as far as a text can tell.
func fingerprint(diff string) string {
	kind, _, _ := strings.Cut(diff, ":")
	return kind
}

// shrink drops units, and words of them, as long as the recipe still differs in the same way.
func (b *bench) shrink(ctx context.Context, r recipe, diff string) (recipe, string) {
	kind := fingerprint(diff)
	try := func(c recipe) bool {
		if ctx.Err() != nil {
			return false
		}
		d, _, err := b.compare(ctx, c, kind)
		if err != nil || d == "" || fingerprint(d) != kind {
			return false
		}
		r, diff = c, d
		return true
	}
	for n := len(r.units) / 2; n > 0; {
		for i := 0; i < len(r.units); {
			if !try(r.without(i, min(i+n, len(r.units)))) {
				i += n
			}
		}
		if n == 1 {
			break
		}
		n = (n + 1) / 2
	}
	for i := range r.units {
		for _, text := range simpler(r.units[i]) {
			if try(r.with(i, text)) {
				break
			}
		}
	}
	for i := len(r.units) - 1; i >= 0; i-- { // what simpler words made superfluous
		try(r.without(i, i+1))
	}
	return r, diff
}

// simpler are shorter forms of a unit, the simplest first.
func simpler(u unit) []string {
	if u.whole || u.section == ".dockerignore" {
		return nil
	}
	words := strings.Fields(u.text)
	if u.section != dockerfile || u.body != 0 {
		return dropOptions(u.text)
	}
	if len(words) < 3 || words[0] != "COPY" && words[0] != "ADD" {
		return nil
	}
	var forms []string
	flag := regexp.MustCompile(`^--(chown|chmod|exclude|link|unpack|parents)`)
	for i := 1; i < len(words)-1; i++ {
		if flag.MatchString(words[i]) || i > 1 && !strings.HasPrefix(words[i], "--") {
			forms = append(forms, strings.Join(append(append([]string{}, words[:i]...), words[i+1:]...), " "))
		}
	}
	return forms
}

// dropOptions leaves out the options of an entry.
func dropOptions(text string) []string {
	var forms []string
	for _, re := range []string{` mtime=\S+`, ` xattr\.\S+`, ` owner=\S+`} {
		if s := regexp.MustCompile(re).ReplaceAllString(text, ""); s != text {
			forms = append(forms, s)
		}
	}
	return forms
}
