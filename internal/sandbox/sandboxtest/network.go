package sandboxtest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"hako/internal/sandbox"
)

func networkCases() cases {
	return cases{
		"no network": func(t *testing.T, b *bed) {
			step := b.command("interfaces")
			step.Network = sandbox.NetworkNone
			wantOut(t, b.run(t, b.base, step).succeeds(t), "lo 127.0.0.1/8 ::1/128 up\n")
		},
		"nothing is reached without network": func(t *testing.T, b *bed) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close() //nolint:errcheck // only for this test
			step := b.command("fails", "refused", "dial", l.Addr().String(), ";", "fails", "unreachable", "dial", "192.0.2.1:80")
			step.Network = sandbox.NetworkNone
			b.run(t, b.base, step).succeeds(t)
		},
		"loopback without network": func(t *testing.T, b *bed) {
			step := b.command("loopback")
			step.Network = sandbox.NetworkNone
			wantOut(t, b.run(t, b.base, step).succeeds(t), "hello\ndatagram\nhello\ndatagram\n")
		},
		"no network as a user": func(t *testing.T, b *bed) {
			step := b.command("loopback", ";", "status", "CapEff", "CapBnd")
			step.Network, step.User = sandbox.NetworkNone, sandbox.User{UID: 1000, GID: 1000}
			r := b.run(t, b.base, step).succeeds(t)
			wantOut(t, r, "hello\ndatagram\nhello\ndatagram\nCapEff: 0000000000000000\nCapBnd: 00000000a80425fb\n")
		},
		"steps without network are apart": func(t *testing.T, b *bed) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					step := b.command("loopback", ";", "status", "CapEff")
					step.Network = sandbox.NetworkNone
					r := b.run(t, b.base, step)
					if r.Exit != nil || !strings.HasSuffix(r.Out, "CapEff: 00000000a80425fb\n") {
						t.Errorf("%v %s %s", r.Exit, r.Out, r.Err)
					}
				})
			}
			wg.Wait()
		},
		"the host's network": func(t *testing.T, b *bed) {
			step := b.command("loopback")
			step.Network = sandbox.NetworkHost
			b.run(t, b.base, step).succeeds(t)
		},
	}
}
