package sentry

import (
	"fmt"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"

	"hako/internal/rootfs"
	"hako/internal/tree"
)

// BenchmarkStart is a sandbox from nothing to the end of its first step.
func BenchmarkStart(b *testing.B) {
	lowers, _ := stackOf(b, exits())
	for b.Loop() {
		e, err := New(b.Context(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := e.Run(b.Context(), runStep(lowers)); err != nil {
			b.Fatal(err)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStep is a further step in a sandbox that runs, over stacks of different heights, with its changes.
func BenchmarkStep(b *testing.B) {
	for _, height := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("%d", height), func(b *testing.B) {
			e := newEngine(b, Options{})
			lowers, _ := stackOf(b, exits())
			for i := 1; i < height; i++ {
				l := rootfs.Lower{ID: digest.FromString(fmt.Sprint(i)), Open: lowers[0].Open}
				lowers = append(lowers, l)
			}
			for b.Loop() {
				out, err := e.Run(b.Context(), runStep(lowers))
				if err != nil {
					b.Fatal(err)
				}
				if err := out.Changes().Each(b.Context(), func(tree.Entry, io.Reader) error { return nil }); err != nil {
					b.Fatal(err)
				}
				if err := out.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
