package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hako/test/lab"
)

// cacher is a builder that can keep the results of steps in a repository, for builds that begin with nothing else.
type cacher interface {
	builder
	// rebuild is build with a cache in a repository.
	rebuild(ctx context.Context, dir, ref, cache string) (usage, error)
}

// rebuildCase is a build of the same context once more, by a builder that has forgotten all but its cache.
type rebuildCase struct {
	what string
	// changes are the files of the context that differ from those of the build before.
	changes []string
}

// rebuildCases follow each other.
func rebuildCases() []rebuildCase {
	return []rebuildCase{
		{"nothing in the cache", []string{lineFile, middleFile}},
		{"nothing changed", nil},
		{"a line of the last COPY changed", []string{lineFile}},
		{"a line of a COPY in the middle changed, three RUN below it", []string{middleFile}},
	}
}

// traffic is what a build took, also of a registry.
type traffic struct {
	usage
	counts
}

// measureRebuilds lets each builder that has a cache build the context of the row "change" again and again.
func (b *bench) measureRebuilds(ctx context.Context) (map[string]map[string][]traffic, error) {
	if err := b.pushBase(ctx, debianBase); err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "context-rebuild")
	change := row{dockerfile: changeDockerfile, files: writeLines}
	if err := change.write(dir, b.registry.Addr); err != nil {
		return nil, fmt.Errorf("write the context: %w", err)
	}
	results := map[string]map[string][]traffic{}
	for i := range b.times {
		for k, c := range rebuildCases() {
			for _, name := range c.changes {
				if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "round %d, build %d\n", i, k), 0o644); err != nil {
					return nil, fmt.Errorf("change the context: %w", err)
				}
			}
			if results[c.what] == nil {
				results[c.what] = map[string][]traffic{}
			}
			if err := b.rebuildRound(ctx, dir, [2]int{i, k}, results[c.what]); err != nil {
				return nil, err
			}
		}
	}
	return results, nil
}

// rebuildRound builds the context once with every builder, and compares what they made. at are the round and the case.
func (b *bench) rebuildRound(ctx context.Context, dir string, at [2]int, results map[string][]traffic) error {
	var want lab.Tree
	for n := range b.builders {
		bu, ok := b.builders[(n+at[0])%len(b.builders)].(cacher) // each comes first in turn
		if !ok {
			continue
		}
		if err := bu.forget(ctx); err != nil {
			return fmt.Errorf("empty %s: %w", bu.name(), err)
		}
		repository := fmt.Sprintf("%s/rebuild/%s-%d", b.registry.Addr, bu.name(), at[0])
		ref := fmt.Sprintf("%s:%d", repository, at[1])
		before := b.counter.counts()
		u, err := bu.rebuild(ctx, dir, ref, repository+"/cache")
		if err != nil {
			return fmt.Errorf("build with %s: %w", bu.name(), err)
		}
		t := traffic{u, b.counter.counts().since(before)}
		fmt.Fprintf(b.log, "%-16s %d.%d: %s; %s\n", bu.name(), at[0]+1, at[1]+1, t.usage, t.counts)
		results[bu.name()] = append(results[bu.name()], t)
		tree, err := b.registry.ImageTree(ctx, ref)
		if err != nil {
			return err
		}
		if want == nil {
			want = tree
		}
		if diffs := lab.Compare(want, tree, mountPoints()); len(diffs) > 0 && !foreign(bu) {
			return fmt.Errorf("%s made another tree than the first builder:\n%s", bu.name(), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
		}
	}
	return nil
}

// printRebuilds writes the table.
func (b *bench) printRebuilds(ctx context.Context, w io.Writer, results map[string]map[string][]traffic) error {
	b.printMachine(w, "wall s / CPU s / requests / MB sent / MB received")
	b.printHeader(w)
	for _, c := range rebuildCases() {
		fmt.Fprintf(w, "| %s |", c.what)
		for _, bu := range b.builders {
			ts := results[c.what][bu.name()]
			us := make([]usage, len(ts))
			for i, t := range ts {
				us[i] = t.usage
			}
			m := medians(us)
			n := middle(ts)
			fmt.Fprintf(w, " %.2f / %.2f / %d / %.1f / %.1f |", m.wall.Seconds(), m.cpu.Seconds(), n.requests, float64(n.sent)/1e6, float64(n.received)/1e6)
		}
		fmt.Fprintln(w)
	}
	return b.printBuilders(ctx, w)
}

// middle are the medians of what went to and came from the registry.
func middle(ts []traffic) counts {
	as := func(figure func(counts) int64) int64 {
		us := make([]usage, len(ts))
		for i, t := range ts {
			us[i] = usage{wall: time.Duration(figure(t.counts))}
		}
		return int64(medians(us).wall)
	}
	return counts{
		requests: as(func(c counts) int64 { return c.requests }),
		sent:     as(func(c counts) int64 { return c.sent }),
		received: as(func(c counts) int64 { return c.received }),
	}
}

func (h *hako) rebuild(ctx context.Context, dir, ref, cache string) (usage, error) {
	again := *h
	again.more = append(again.more, "--cache", "--cache-repo", cache)
	return again.build(ctx, dir, ref)
}

func (c *container) rebuild(ctx context.Context, dir, ref, cache string) (usage, error) {
	again := *c
	again.args = append(again.args[:len(again.args):len(again.args)], "--cache", "--cache-repo", cache)
	return again.build(ctx, dir, ref)
}

func (k *buildkit) rebuild(ctx context.Context, dir, ref, cache string) (usage, error) {
	return k.run(ctx, dir, ref, "--export-cache", "type=registry,mode=max,ref="+cache, "--import-cache", "type=registry,ref="+cache)
}
