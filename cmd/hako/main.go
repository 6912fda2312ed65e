// Command hako builds container images from Dockerfiles, without a daemon, in any container.
// Started under the name executor or warmer it takes the command line of kaniko's program of that name.
//
// SIGTERM and SIGINT stop the build: running steps are killed, everything that was made on the way is deleted,
// and the exit code is 128 plus the signal's number. A second signal ends the program at once.
package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/cgroup"
	"hako/internal/cli"
	"hako/internal/output"
	"hako/internal/sandbox/choice"
)

//go:embed version.txt
var version string

func main() {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	os.Exit(run())
}

func run() int {
	// Nobody who runs as the same user may trace us or read our memory, which holds credentials.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "hako: make the process undumpable:", err)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		const share = 75 // percent; the rest is for sandboxes, and for what is not on the heap
		debug.SetMemoryLimit(cgroup.SoftLimit(share))
	}
	ctx, stop := untilSignal(context.Background())
	defer stop()
	if os.Getpid() == 1 {
		defer reapOrphans()()
	}
	cwd, err := os.Getwd()
	if err != nil {
		fmt.Fprintln(os.Stderr, "hako: find the working directory:", err)
		return 1
	}
	return cli.Main(ctx, cli.Env{
		Environ: os.Environ(), Cwd: cwd, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Now: time.Now, Version: strings.TrimSpace(version), LastWords: lastWords(),
	}, os.Args)
}

// lastWords is where the kubelet looks for why a container ended, if this is the container's own program.
func lastWords() string {
	if os.Getpid() != 1 {
		return ""
	}
	return output.TerminationLog
}

// untilSignal returns a context that the first SIGTERM or SIGINT cancels, with a cli.SignalError as its cause.
// The second signal ends the process. stop ends the watch.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case s := <-signals:
				number := int(s.(syscall.Signal)) // Notify on Linux sends nothing else
				if n > 0 {
					os.Exit(128 + number)
				}
				cancel(&cli.SignalError{Number: number, Name: s.String()})
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
