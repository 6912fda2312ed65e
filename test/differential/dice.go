package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// dice makes the choices of one case; the same seed makes the same ones.
type dice struct{ *rand.Rand }

func newDice(seed, n uint64) dice { return dice{rand.New(rand.NewPCG(seed, n))} }

// chance is true p times of 100.
func (d dice) chance(p int) bool { return d.IntN(100) < p }

// upTo is a number from low to high.
func (d dice) upTo(low, high int) int { return low + d.IntN(high-low+1) }

// pick returns one of the words.
func (d dice) pick(words ...string) string { return words[d.IntN(len(words))] }

// some returns each word with a chance of p in 100.
func (d dice) some(p int, words ...string) string {
	var kept []string
	for _, w := range words {
		if d.chance(p) {
			kept = append(kept, w)
		}
	}
	return strings.Join(kept, " ")
}

// choice is one of several things to do, as often as its weight says.
type choice struct {
	weight int
	do     func()
}

func (d dice) do(choices []choice) {
	sum := 0
	for _, c := range choices {
		sum += c.weight
	}
	n := d.IntN(sum)
	for _, c := range choices {
		if n < c.weight {
			c.do()
			return
		}
		n -= c.weight
	}
}

// name is one of few names, so that they collide.
func (d dice) name() string {
	if d.chance(4) {
		return d.pick(".h", "a.b", "é", "x-y", "c~", "ab")
	}
	return d.pick("a", "b", "c", "d", "l")
}

// path is one to most names long.
func (d dice) path(most int) string {
	n := d.upTo(1, most)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = d.name()
	}
	return strings.Join(parts, "/")
}

func (d dice) fileMode() string {
	return d.pick("0644", "0644", "0600", "0755", "0444", "4755", "2755", "0000", "1644", "6711", "0640")
}

func (d dice) dirMode() string {
	return d.pick("0755", "0755", "0700", "1777", "2755", "0711", "0555")
}

func (d dice) owner() string {
	return d.pick("0:0", "0:0", "1:2", "1000:1001", "65534:65534", "7:0", "100000:100000", "3000000000:5")
}

func (d dice) time() string {
	if d.chance(5) {
		return d.pick("1970-01-01T00:00:00Z", "1969-12-31T23:59:58Z", "2001-02-03T04:05:06.75Z", "1901-01-01T00:00:00Z")
	}
	return fmt.Sprintf("%d-%02d-01T00:00:%02dZ", d.upTo(1980, 2020), d.upTo(1, 12), d.IntN(60))
}

func (d dice) content() string {
	return d.pick("", "x", "hello\n", "other text\n", "line 1\nline 2\n", "y\x00z")
}

// linkTarget is where a symbolic link in the directory of a path like d.path points.
func (d dice) linkTarget() string {
	return d.pick(d.name(), d.name(), d.path(2), "../"+d.name(), "/w/"+d.path(2), "/w/"+d.name(), "/", ".", "..", "../../..", "/nowhere", "nowhere/x", "/etc/passwd", "./"+d.name()+"/")
}

// capability is a value of security.capability: cap_net_bind_service=ep.
const capability = `"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"`
