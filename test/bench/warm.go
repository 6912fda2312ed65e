package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// warm is a builder that has built each context once before it is measured, and has kept base images on a volume since; steps, too,
// in a context that changes between two builds.
type warm struct {
	builder
	built map[string]bool // contexts
}

func newWarm(bu builder) builder { return &warm{builder: bu, built: map[string]bool{}} }

func (w *warm) build(ctx context.Context, dir, ref string) (u usage, err error) {
	if changes(dir) {
		// Each build finds another line than the ones before; the first that is measured, the one that the others find, too.
		defer func() { err = errors.Join(err, writeLine(dir)) }()
	}
	if !w.built[dir] {
		if err := w.change(dir, "before"); err != nil {
			return usage{}, err
		}
		if _, err := w.builder.build(ctx, dir, ref); err != nil {
			return usage{}, err
		}
		w.built[dir] = true
		if changes(dir) {
			if err := writeLine(dir); err != nil {
				return usage{}, err
			}
		}
	} else if err := w.change(dir, ref); err != nil {
		return usage{}, err
	}
	return w.builder.build(ctx, dir, ref)
}

// change changes the line of a context that has one.
func (w *warm) change(dir, text string) error {
	if !changes(dir) {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, lineFile), []byte(text+"\n"), 0o644)
}

// openWarm is hako with the engine that it chooses itself, and a volume.
func (b *bench) openWarm(ctx context.Context) (builder, error) {
	return b.openEngineWarm(ctx, "hako-warm", "auto")
}

// openSentryWarm is hako with the user-space kernel, and a volume.
func (b *bench) openSentryWarm(ctx context.Context) (builder, error) {
	return b.openEngineWarm(ctx, "hako-sentry-warm", "sentry")
}

func (b *bench) openEngineWarm(ctx context.Context, label, engine string) (builder, error) {
	bu, err := b.openEngine(ctx, label, engine)
	if err != nil {
		return nil, err
	}
	h, ok := bu.(*hako)
	if !ok {
		return nil, fmt.Errorf("%s is no hako", label) // cannot be
	}
	h.cache = filepath.Join(b.dir, label+"-cache")
	if err := os.Mkdir(h.cache, 0o755); err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	return newWarm(h), nil
}

// openRestrictedWarm is the executor image as uid 1000 without capabilities, with a volume of base images and an empty one.
func (b *bench) openRestrictedWarm(ctx context.Context) (builder, error) {
	volumes := []string{filepath.Join(b.dir, "warm-volume"), filepath.Join(b.dir, "warm-cache")}
	for _, v := range volumes {
		if err := os.Mkdir(v, 0o755); err != nil {
			return nil, fmt.Errorf("make a volume: %w", err)
		}
		if err := os.Chown(v, 1000, 1000); err != nil {
			return nil, fmt.Errorf("make a volume: %w", err)
		}
	}
	bu, err := b.openExecutor(ctx, &container{
		label: "hako-restricted-warm", what: "uid 1000 in a restricted container with a volume of base images",
		privileges: []string{
			"--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "-v", volumes[0] + ":/tmp", "-v", volumes[1] + ":/cache",
		},
	})
	if err != nil {
		return nil, err
	}
	c, ok := bu.(*container)
	if !ok {
		return nil, fmt.Errorf("%T is no container", bu) // cannot be
	}
	c.args, c.cache = append(c.args, "--cache-dir=/cache"), "/cache"
	return newWarm(c), nil
}
