// Command bench builds the same contexts with hako and with whatever other builders this machine has, in alternation,
// cold each time, pushing to a registry on loopback, and prints medians as a Markdown table.
//
//	go run ./test/bench -n 5                       # everything
//	go run ./test/bench -rows trivial -builders hako,docker
//	go run ./test/bench -rebuild                   # with caches
//
// It needs root and cgroups: each builder runs in a control group of its own, with the daemons and containers that work
// for it, so that CPU time and memory are those of all who took part. See docs/performance.md for what the rows are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"hako/test/lab"
)

// options are the command line.
type options struct {
	times          int
	rows, builders string
	buildkit, dir  string
	kaniko         string
	rebuild        bool
}

func main() {
	var o options
	flag.IntVar(&o.times, "n", 5, "how many `times` each builder builds each row")
	flag.StringVar(&o.rows, "rows", "", "only these `rows`, separated by commas")
	flag.StringVar(&o.builders, "builders", "", "only these `builders`, separated by commas")
	flag.StringVar(&o.buildkit, "buildkit", "", "`directory` of buildkitd and buildctl, if they are not in PATH")
	flag.StringVar(&o.kaniko, "kaniko", "", "kaniko's executor, a `file`")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "`directory` to work in: a disk")
	flag.BoolVar(&o.rebuild, "rebuild", false, "build one context again and again with a cache in the registry, instead of the rows")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures and prints the table to w, progress to log.
func run(ctx context.Context, o options, w, log io.Writer) (err error) {
	if os.Getuid() != 0 {
		return errors.New("needs root: control groups and other builders")
	}
	dir, err := os.MkdirTemp(o.dir, "hako-bench-")
	if err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, unmountBelow(dir), os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	b := &bench{dir: dir, log: log, options: o, pushed: map[string]bool{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.start(ctx); err != nil {
		return err
	}
	if o.rebuild {
		results, err := b.measureRebuilds(ctx)
		if err != nil {
			return err
		}
		return b.printRebuilds(ctx, w, results)
	}
	results, err := b.measure(ctx)
	if err != nil {
		return err
	}
	return b.print(ctx, w, results)
}

// unmountBelow takes away what daemons leave mounted below dir when they end.
func unmountBelow(dir string) error {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range slices.Backward(lines) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[1], dir+"/") {
			continue
		}
		if err := syscall.Unmount(fields[1], syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", fields[1], err)
		}
	}
	return nil
}

// bench is one run of the program.
type bench struct {
	options
	dir      string
	log      io.Writer
	registry *lab.Registry
	counter  counter         // stands before the registry, if rebuilds are measured
	pushed   map[string]bool // bases
	builders []builder
	// absent says which builders are not measured and why.
	absent []string
	// differs says where others' images are not what hako and BuildKit make.
	differs []string
	closed  []func() error
}

// start starts the registry and finds the builders.
func (b *bench) start(ctx context.Context) (err error) {
	data := filepath.Join(b.dir, "registry")
	if err := os.Mkdir(data, 0o700); err != nil {
		return fmt.Errorf("make the registry's directory: %w", err)
	}
	if b.registry, err = lab.StartRegistry(ctx, data, "", ""); err != nil {
		return err
	}
	b.closed = append(b.closed, b.registry.Close)
	if b.rebuild {
		addr, stop, err := b.counter.start(b.registry.Addr)
		if err != nil {
			return err
		}
		b.registry.Addr = addr
		b.closed = append(b.closed, stop)
	}
	return b.findBuilders(ctx)
}

// close ends everything that start began, last first.
func (b *bench) close() error {
	var errs []error
	for _, f := range slices.Backward(b.closed) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// measure builds each row with each builder, one after the other, n times.
func (b *bench) measure(ctx context.Context) (map[string]map[string][]usage, error) {
	results := map[string]map[string][]usage{}
	for _, r := range rows() {
		if !chosen(b.rows, r.name) {
			continue
		}
		if err := b.pushBase(ctx, r.base); err != nil {
			return nil, err
		}
		dir := filepath.Join(b.dir, "context-"+r.name)
		if err := r.write(dir, b.registry.Addr); err != nil {
			return nil, fmt.Errorf("write the context of %s: %w", r.name, err)
		}
		results[r.name] = map[string][]usage{}
		for i := range b.times {
			if err := b.round(ctx, r, dir, i, results[r.name]); err != nil {
				return nil, err
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove the context of %s: %w", r.name, err)
		}
	}
	return results, nil
}

// round builds row r once with every builder; the first round also compares their trees.
func (b *bench) round(ctx context.Context, r row, dir string, i int, results map[string][]usage) error {
	var want lab.Tree
	for k := range b.builders {
		bu := b.builders[(k+i)%len(b.builders)] // each comes first in turn
		ref := fmt.Sprintf("%s/bench/%s-%s-%d:1", b.registry.Addr, r.name, bu.name(), i)
		if err := bu.forget(ctx); err != nil {
			return fmt.Errorf("empty %s: %w", bu.name(), err)
		}
		u, err := bu.build(ctx, dir, ref)
		if err != nil {
			return fmt.Errorf("build %s with %s: %w", r.name, bu.name(), err)
		}
		fmt.Fprintf(b.log, "%-12s %-16s %d: %s\n", r.name, bu.name(), i+1, u)
		results[bu.name()] = append(results[bu.name()], u)
		if i > 0 {
			continue
		}
		tree, err := b.registry.ImageTree(ctx, ref)
		if err != nil {
			return err
		}
		if want == nil {
			want = tree
		}
		if diffs := lab.Compare(want, tree, mountPoints()); len(diffs) > 0 {
			text := fmt.Sprintf("%s with %s is another tree than with %s:\n%s", r.name, bu.name(), b.builders[0].name(), strings.Join(diffs[:min(len(diffs), 20)], "\n"))
			if !foreign(bu) {
				return errors.New(text)
			}
			b.differs = append(b.differs, fmt.Sprintf("%s, row %s: another tree, %d differences", bu.name(), r.name, len(diffs)))
			fmt.Fprintln(b.log, text)
		}
	}
	return nil
}

// mountPoints are what Docker and buildah leave in a layer for their own mounts.
func mountPoints() []lab.Exception {
	var es []lab.Exception
	for _, p := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab", "/dev/**", "/proc/**", "/sys/**", "/run/**", "/run", "/.dockerenv"} {
		es = append(es, lab.Exception{Pattern: p, What: "all", Why: "mount point of a container"})
	}
	return es
}

// chosen says whether name is in the comma-separated list, which chooses everything if it is empty.
func chosen(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}
