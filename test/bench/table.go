package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"hako/test/lab"
)

// print writes the machine, the table and what follows from it.
func (b *bench) print(ctx context.Context, w io.Writer, results map[string]map[string][]usage) error {
	b.printMachine(w, "wall s / CPU s / peak memory MB (of it the builder alone)")
	b.printHeader(w)
	for _, r := range rows() {
		if results[r.name] == nil {
			continue
		}
		fmt.Fprintf(w, "| %s: %s |", r.name, r.what)
		for _, bu := range b.builders {
			m := medians(results[r.name][bu.name()])
			fmt.Fprintf(w, " %.2f / %.2f / %d", m.wall.Seconds(), m.cpu.Seconds(), m.peakBytes/1e6)
			if m.builderBytes > 0 {
				fmt.Fprintf(w, " (%d)", m.builderBytes/1e6)
			}
			fmt.Fprint(w, " |")
		}
		fmt.Fprintln(w)
	}
	b.printSteps(w, results)
	return b.printBuilders(ctx, w)
}

// printMachine writes when, where and what was measured.
func (b *bench) printMachine(w io.Writer, figures string) {
	fmt.Fprintf(w, "%s, %d cores, %s, load %s; n = %d; %s, medians.\n\n",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), kernel(), load(), b.times, figures)
}

// printHeader writes the first lines of a table.
func (b *bench) printHeader(w io.Writer) {
	fmt.Fprint(w, "| row |")
	for _, bu := range b.builders {
		fmt.Fprintf(w, " %s |", bu.name())
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---|", len(b.builders)))
}

// printBuilders writes which builders were measured and which were not, and what else is to be known of them.
func (b *bench) printBuilders(ctx context.Context, w io.Writer) error {
	fmt.Fprintln(w)
	for _, bu := range b.builders {
		version, err := bu.describe(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "- %s: %s\n", bu.name(), version)
	}
	for _, d := range b.differs {
		fmt.Fprintf(w, "- %s\n", d)
	}
	for _, a := range b.absent {
		fmt.Fprintf(w, "- not measured: %s\n", a)
	}
	return nil
}

// printSteps is the cost of one more RUN: the difference of forty and one.
func (b *bench) printSteps(w io.Writer, results map[string]map[string][]usage) {
	if results["run-1"] == nil || results["run-40"] == nil {
		return
	}
	fmt.Fprint(w, "| one more RUN true, from the rows of 40 and 1, ms |")
	for _, bu := range b.builders {
		one, forty := medians(results["run-1"][bu.name()]), medians(results["run-40"][bu.name()])
		fmt.Fprintf(w, " %d / %d |", ((forty.wall - one.wall) / 39).Milliseconds(), ((forty.cpu - one.cpu) / 39).Milliseconds())
	}
	fmt.Fprintln(w)
}

// medians takes each figure's median by itself.
func medians(us []usage) usage {
	if len(us) == 0 {
		return usage{}
	}
	return usage{
		wall:      median(us, func(u usage) time.Duration { return u.wall }),
		cpu:       median(us, func(u usage) time.Duration { return u.cpu }),
		peakBytes: median(us, func(u usage) int64 { return u.peakBytes }),

		builderBytes: median(us, func(u usage) int64 { return u.builderBytes }),
	}
}

func median[T cmp.Ordered](us []usage, figure func(usage) T) T {
	vs := make([]T, len(us))
	for i, u := range us {
		vs[i] = figure(u)
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

func kernel() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return "unknown kernel"
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return "Linux " + b.String()
}

func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// firstLine runs a command and returns the first line that it prints.
func firstLine(ctx context.Context, args ...string) (string, error) {
	out, err := lab.Must(ctx, args...)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return line, nil
}
