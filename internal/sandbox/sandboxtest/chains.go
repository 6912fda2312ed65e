package sandboxtest

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"hako/internal/sandbox"
)

const (
	// chained is how many steps stand on one another in the longest chain.
	chained = 140
	// stacked is the height of the highest stack of layers: an overlay takes 500 lowers, images may have more.
	stacked = 520
)

func isolationCases() cases {
	return cases{
		"background processes end": func(t *testing.T, b *bed) {
			r := b.ok(t, "spawn", "sleep", "1h", ";", "spawn", "spin", ";", "echo", "started")
			wantOut(t, r, "started\n")
			wantOut(t, b.ok(t, "procs"), "1\n")
		},
		"nothing of the host": func(t *testing.T, b *bed) {
			r := b.ok(t, "env", ";", "ls", "/", ";", "procs")
			wantOut(t, r, "PATH=/bin\nbin\ndata\ndev\netc\nproc\nsys\ntmp\n1\n")
		},
		"network": func(t *testing.T, b *bed) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // only for this test
			go func() {
				if c, err := l.Accept(); err == nil {
					_, _ = c.Write([]byte("hello\n")) // what arrives is what is tested
					_ = c.Close()
				}
			}()
			wantOut(t, b.ok(t, "dial", l.Addr().String()), "hello\n")
		},
		"no mounts": func(t *testing.T, b *bed) {
			b.ok(t, "fails", "not permitted", "mount", "/tmp")
		},
		"parallel steps do not see each other": func(t *testing.T, b *bed) {
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					p := fmt.Sprintf("/data/p%d", i)
					r := b.ok(t, "write", p, "x", ";", "ls", "/data", ";", "procs")
					wantOut(t, r, fmt.Sprintf("a\nb\nowned\np%d\nsub\nxattr\n1\n", i))
				})
			}
			wg.Wait()
		},
	}
}

func chainCases() cases {
	return cases{
		"two steps": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/data/one", "1")
			r = b.okOn(t, r.Stack, "cat", "/data/one", "/data/a", ";", "append", "/data/one", "2", ";", "rm", "/data/b")
			wantOut(t, r, "1a\n")
			r.want(t, dirAt("data"), gone("data/b"), written("data/one", "12"))
			wantOut(t, b.okOn(t, r.Stack, "ls", "/data", ";", "cat", "/data/one"), "a\none\nowned\nsub\nxattr\n12")
		},
		"kept and mounted are the same": func(t *testing.T, b *bed) {
			const script = "rm /data/a ; mkdir /data/new ; write /data/new/x 1 ; chmod /data/sub 0700 ; setxattr /data/new user.a b ; rmall /data/sub"
			r := b.ok(t, fields(script)...)
			// The same layer under another chain ID: the engine has to mount it from its blob.
			again := b.stack(t, base(b.applet), list{dir("other", 0o755)}, r.Changes)
			kept := b.okOn(t, r.Stack, "ls", "/data", ";", "ls", "/data/new", ";", "stat", "/data/new", "/data/new/x")
			mounted := b.okOn(t, again, "ls", "/data", ";", "ls", "/data/new", ";", "stat", "/data/new", "/data/new/x")
			wantOut(t, mounted, kept.Out)
		},
		"scratch": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args = []string{"/x"}
			r := b.run(t, nil, step)
			wantExit(t, r, &sandbox.ExitError{Code: 1})
			wantContains(t, r.Err, `exec: "/x": stat /x: no such file or directory`)
		},
		"high stack": func(t *testing.T, b *bed) {
			s := b.base
			for i := range chained {
				s = b.okOn(t, s, "append", "/data/a", "x", ";", "write", fmt.Sprintf("/data/sub/n%03d", i), "1").Stack
			}
			r := b.okOn(t, s, "cat", "/data/a", ";", "stat", "/data/sub/n000", ";", "rm", "/data/sub/n001", ";", "rm", "/data/b")
			if want := chained + len("a\n"); len(r.Out) < want {
				t.Errorf("%d bytes of %d", len(r.Out), want)
			}
			r.want(t, dirAt("data"), gone("data/b"), dirAt("data/sub"), gone("data/sub/n001"))
		},
		"high stack of images": func(t *testing.T, b *bed) {
			layers := []list{base(b.applet)}
			for i := range stacked {
				l := list{dir("data", 0o755)}
				if i > 0 {
					l = append(l, gone(fmt.Sprintf("data/n%03d", i-1)))
				}
				layers = append(layers, append(l, regular(fmt.Sprintf("data/n%03d", i), "1", 0o644)))
			}
			wantOut(t, b.okOn(t, b.stack(t, layers...), "ls", "/data"), fmt.Sprintf("a\nb\nn%03d\nowned\nsub\nxattr\n", stacked-1))
		},
	}
}

func fields(script string) []string { return strings.Fields(script) }
