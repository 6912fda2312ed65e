package sandboxtest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/sandbox"
)

func wantExit(t *testing.T, r *result, want *sandbox.ExitError) {
	t.Helper()
	if d := cmp.Diff(want, r.Exit); d != "" {
		t.Errorf("exit (-want +got):\n%s\nstdout %q\nstderr %q", d, r.Out, r.Err)
	}
}

func wantOut(t *testing.T, r *result, want string) {
	t.Helper()
	if d := cmp.Diff(want, r.Out); d != "" {
		t.Errorf("stdout (-want +got):\n%s\nstderr %q", d, r.Err)
	}
}

func exitCases() cases {
	return cases{
		"success": func(t *testing.T, b *bed) {
			r := b.ok(t, "echo", "hello")
			wantOut(t, r, "hello\n")
		},
		"exit code": func(t *testing.T, b *bed) {
			wantExit(t, b.run(t, b.base, b.command("exit", "7")), &sandbox.ExitError{Code: 7})
		},
		"signal": func(t *testing.T, b *bed) {
			// The first process of a PID namespace cannot be killed from inside, but its child can, and exec makes no difference.
			r := b.run(t, b.base, b.command("fails", "signal: killed", "child", "raise", "9"))
			wantExit(t, r, nil)
		},
		"crash": func(t *testing.T, b *bed) {
			r := b.run(t, b.base, b.command("crash"))
			wantExit(t, r, &sandbox.ExitError{Code: -1, Signal: 11})
		},
	}
}

func startCases() cases {
	return cases{
		"command not found": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"nothing-like-that"}
			r := b.run(t, b.base, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, `exec: "nothing-like-that": executable file not found in $PATH`)
		},
		"path not found": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"/bin/sh", "-c", "true"}
			r := b.run(t, b.base, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, `exec: "/bin/sh": stat /bin/sh: no such file or directory`)
		},
		"not executable": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"/etc/passwd"}
			r := b.run(t, b.base, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, `exec: "/etc/passwd": permission denied`)
		},
		"directory as command": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"/etc"}
			r := b.run(t, b.base, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, `exec: "/etc": is a directory`)
		},
		"bad format": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"/script"}
			r := b.run(t, b.stack(t, base(b.applet), list{regular("script", "no format at all", 0o755)}), step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, "exec /script: exec format error")
		},
		"command in PATH": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args, step.Env = []string{"do", "pwd"}, []string{"PATH=/sbin:/data:/bin"}
			step.Dir = "/data/sub"
			wantOut(t, b.run(t, b.base, step), "/data/sub\n")
		},
		"relative command": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args, step.Dir = []string{"./do", "pwd"}, "/bin"
			wantOut(t, b.run(t, b.base, step), "/bin\n")
		},
	}
}

func workingDirectoryCases() cases {
	return cases{
		"missing working directory": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args, step.Dir = []string{"/bin/do", "pwd"}, "/a/b"
			r := b.run(t, b.base, step)
			wantOut(t, r, "/a/b\n")
			r.want(t, with([]file{dirAt("a"), dirAt("a/b")})...)
		},
		"working directory under a file": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args, step.Dir = []string{"/bin/do", "pwd"}, "/data/a/b"
			r := b.run(t, b.base, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, "make working directory: /data/a: not a directory")
		},
	}
}

func wantContains(t *testing.T, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("got %q, want it to contain %q", got, want)
	}
}

func outputCases() cases {
	return cases{
		"big output": func(t *testing.T, b *bed) {
			const n = 200_000
			r := b.ok(t, "lines", fmt.Sprint(n))
			var out, errs strings.Builder
			for i := range n {
				fmt.Fprintf(&out, "out %d\n", i)
				fmt.Fprintf(&errs, "err %d\n", i)
			}
			if r.Out != out.String() || r.Err != errs.String() {
				t.Errorf("%d and %d bytes of output differ from what was written (%d, %d)", len(r.Out), len(r.Err), out.Len(), errs.Len())
			}
		},
		"stdin is empty": func(t *testing.T, b *bed) {
			wantOut(t, b.ok(t, "cat", "-", ";", "stat", "/dev/stdin"), "/dev/stdin 120777 0:0 0,0\n")
		},
		"stdin": func(t *testing.T, b *bed) {
			step := b.command("cat", "-")
			step.Stdin = strings.NewReader("from outside\n")
			wantOut(t, b.run(t, b.base, step), "from outside\n")
		},
		"descriptors": func(t *testing.T, b *bed) {
			r := b.ok(t, "fds")
			r.Out = strings.ReplaceAll(r.Out, "host", "pipe") // gVisor's name for a pipe from outside
			wantOut(t, r, "0 /dev/null\n1 pipe\n2 pipe\n")
		},
		"reopened stdout": func(t *testing.T, b *bed) {
			step := b.command("write", "/dev/stdout", "again\n", ";", "write", "/dev/stderr", "oops\n")
			step.User = sandbox.User{UID: 1000, GID: 1000}
			r := b.run(t, b.base, step)
			wantExit(t, r, nil)
			wantOut(t, r, "again\n")
			if r.Err != "oops\n" {
				t.Errorf("stderr %q", r.Err)
			}
		},
		"a failing writer": func(t *testing.T, b *bed) {
			step := b.command("lines", "100000")
			step.Lowers, step.Stdout, step.Stderr = b.base.Lowers(), brokenWriter{}, &lockedBuffer{}
			_, err := b.engine.Run(t.Context(), step)
			if !errors.Is(err, errBroken) {
				t.Errorf("got %v, want %v", err, errBroken)
			}
		},
	}
}

var errBroken = errors.New("broken writer")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

// started is a writer that tells when the first byte comes.
type started struct {
	lockedBuffer
	once chan struct{}
}

func (s *started) Write(p []byte) (int, error) {
	select {
	case s.once <- struct{}{}:
	default:
	}
	return s.lockedBuffer.Write(p)
}

func cancelCases() cases {
	errStop := errors.New("stop it")
	cancelled := func(t *testing.T, b *bed, args ...string) {
		t.Helper()
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		out := &started{once: make(chan struct{}, 1)}
		step := on(b.base, b.command(args...))
		step.Stdout, step.Stderr = out, &lockedBuffer{}
		go func() {
			<-out.once
			cancel(errStop)
		}()
		begin := time.Now()
		_, err := b.engine.Run(ctx, step)
		if !errors.Is(err, errStop) {
			t.Errorf("got %v, want %v", err, errStop)
		}
		if d := time.Since(begin); d > stepTimeout {
			t.Errorf("it took %v", d)
		}
	}
	return cases{
		"cancel": func(t *testing.T, b *bed) {
			cancelled(t, b, "echo", "on my way", ";", "sleep", "1h")
		},
		"cancel children": func(t *testing.T, b *bed) {
			cancelled(t, b, "spawn", "sleep", "1h", ";", "spawn", "spin", ";", "echo", "on my way", ";", "sleep", "1h")
		},
		"cancelled before": func(t *testing.T, b *bed) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(errStop)
			step := on(b.base, b.command("sleep", "1h"))
			step.Stdout, step.Stderr = &lockedBuffer{}, &lockedBuffer{}
			if _, err := b.engine.Run(ctx, step); !errors.Is(err, errStop) {
				t.Errorf("got %v, want %v", err, errStop)
			}
		},
	}
}
