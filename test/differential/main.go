// Command differential makes random Dockerfiles with contexts and base images, builds each with hako and with BuildKit,
// and compares what comes out. What differs is made as small as possible and printed in the form of test/conformance.
//
//	go run ./test/differential -seed 1 -n 500 -buildkit unix:///run/buildkit/buildkitd.sock -registry 127.0.0.1:5055
//
// README.md says how BuildKit is set up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	engine "hako/internal/sandbox/choice"
)

func main() {
	if engine.IsChild(os.Args) {
		os.Exit(engine.ChildMain())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "differential:", err)
		os.Exit(1)
	}
}

// campaign is a run over many recipes.
type campaign struct {
	bench    *bench
	seed     uint64
	first, n uint64
	parallel int
	// out is the directory for what was found; empty for none.
	out    string
	shrink bool
	report io.Writer
	// mu guards found and report.
	mu    sync.Mutex
	found int
}

func command(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("differential", flag.ContinueOnError)
	c := &campaign{report: os.Stdout}
	var d daemon
	flags.Uint64Var(&c.seed, "seed", 1, "the seed; equal seeds make equal cases")
	flags.Uint64Var(&c.first, "first", 0, "the number of the first case")
	flags.Uint64Var(&c.n, "n", 100, "how many cases")
	flags.IntVar(&c.parallel, "parallel", 2, "how many at a time")
	flags.StringVar(&c.out, "out", "", "a directory for the cases that differ")
	flags.BoolVar(&c.shrink, "shrink", true, "make the cases that differ small")
	show := flags.Bool("print", false, "print the cases and build nothing")
	file := flags.String("case", "", "build this case and no random ones")
	flags.StringVar(&d.addr, "buildkit", os.Getenv("BUILDKIT_HOST"), "addresses of buildkitd, with commas between them")
	flags.StringVar(&d.buildctl, "buildctl", "buildctl", "the program buildctl")
	flags.StringVar(&d.registry, "registry", "127.0.0.1:5055", "where to serve the images; BuildKit's mirror of docker.io")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *show {
		return c.print()
	}
	if d.addr == "" {
		return errors.New("needs BuildKit at -buildkit or $BUILDKIT_HOST")
	}
	dir, err := os.MkdirTemp("", "differential")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if c.bench, err = newBench(ctx, d, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.bench.Close()) }()
	if *file != "" {
		return c.one(ctx, *file)
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	fmt.Fprintf(c.report, "%d builds, %d of them failed with both; %d cases differ\n", c.bench.count.Load(), c.bench.failed.Load(), c.found)
	if c.found > 0 {
		return fmt.Errorf("%d cases differ", c.found)
	}
	return nil
}

func (c *campaign) print() error {
	for i := c.first; i < c.first+c.n; i++ {
		if _, err := fmt.Fprintf(c.report, "# seed %d, case %d\n%s\n", c.seed, i, generate(c.seed, i).text()); err != nil {
			return err
		}
	}
	return nil
}

// one compares the case in a file, as it stands.
func (c *campaign) one(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	diff, failed, err := c.bench.compare(ctx, parse(string(data)), "")
	if failed != nil {
		fmt.Fprintln(c.report, "both fail:", failed.Text)
	}
	fmt.Fprintln(c.report, diff)
	return err
}

// run tries the recipes, several at a time.
func (c *campaign) run(ctx context.Context) error {
	next := make(chan uint64)
	errs := make([]error, c.parallel)
	var wg sync.WaitGroup
	for w := range c.parallel {
		wg.Go(func() {
			for i := range next { // closed below; it is drained after an error too
				if errs[w] == nil && ctx.Err() == nil {
					errs[w] = c.try(ctx, i)
				}
			}
		})
	}
	for i := c.first; i < c.first+c.n; i++ {
		if i%20 == 0 {
			fmt.Fprintf(os.Stderr, "case %d, %d builds\n", i, c.bench.count.Load())
		}
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(append(errs, context.Cause(ctx))...)
}

// maxRepairs is how many failing instructions are taken out of a recipe.
const maxRepairs = 8

// try compares one recipe. An instruction that fails with both builders is taken out, so that the others are tried too.
func (c *campaign) try(ctx context.Context, i uint64) error {
	r := generate(c.seed, i)
	for range maxRepairs {
		diff, failed, err := c.bench.compare(ctx, r, "")
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		if diff != "" {
			return c.differs(ctx, i, r, diff)
		}
		if failed == nil {
			return nil
		}
		var ok bool
		if r, ok = r.withoutLine(failed.Line); !ok {
			return nil
		}
	}
	return nil
}

func (c *campaign) differs(ctx context.Context, i uint64, r recipe, diff string) error {
	if c.shrink {
		r, diff = c.bench.shrink(ctx, r, diff)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found++
	text := fmt.Sprintf("=== seed %d, case %d\n%s\n--- difference\n%s\n", c.seed, i, r.text(), diff)
	if _, err := io.WriteString(c.report, text); err != nil {
		return err
	}
	if c.out == "" {
		return nil
	}
	name := filepath.Join(c.out, fmt.Sprintf("differs_%d_%d", c.seed, i))
	return errors.Join(os.WriteFile(name+".txtar", []byte(r.text()), 0o644), os.WriteFile(name+".diff", []byte(diff), 0o644))
}

func silent() *log.Logger { return log.New(io.Discard, "", 0) }
