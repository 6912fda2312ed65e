package sandboxtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
)

// shouter answers each connection with what it hears, in capitals.
func shouter() *sandbox.Socket {
	return &sandbox.Socket{Mode: 0o600, Dial: func(context.Context) (net.Conn, error) {
		near, far, err := connPair()
		if err != nil {
			return nil, err
		}
		go func() {
			if heard, err := io.ReadAll(far); err == nil {
				_, _ = far.Write(bytes.ToUpper(heard)) // what arrives is what is tested
			}
			_ = far.Close()
		}()
		return near, nil
	}}
}

// connPair is a connection that can be closed for one direction only.
func connPair() (near, far net.Conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		if ends[i], err = net.FileConn(f); err != nil {
			return nil, nil, err
		}
		if err := f.Close(); err != nil {
			return nil, nil, err
		}
	}
	return ends[0], ends[1], nil
}

func socketCases() cases {
	return cases{
		"socket": func(t *testing.T, b *bed) {
			s := shouter()
			s.Mode, s.UID, s.GID = 0o640, 7, 8
			r := b.mounted(t, one("/run/agent/sock", s), "stat", "/run/agent/sock", ";", "ask", "/run/agent/sock", "hello\n", ";", "ask", "/run/agent/sock", "again\n").succeeds(t)
			wantOut(t, r, "/run/agent/sock 140640 7:8 0,0\nHELLO\nAGAIN\n")
			r.want(t, mounted()...)
		},
		"socket of another user": func(t *testing.T, b *bed) {
			step := b.command("fails", "permission denied", "ask", "/sock", "hello")
			step.Mounts, step.User = one("/sock", shouter()), sandbox.User{UID: 1000, GID: 1000}
			b.run(t, b.base, step).succeeds(t)
			s := shouter()
			s.UID = 1000
			step = b.command("ask", "/sock", "hello")
			step.Mounts, step.User = one("/sock", s), sandbox.User{UID: 1000, GID: 1000}
			wantOut(t, b.run(t, b.base, step).succeeds(t), "HELLO")
		},
		"socket over a file": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/data/a", shouter()), "ask", "/data/a", "x", ";", "fails", "busy", "rm", "/data/a").succeeds(t)
			r.want(t, mounted()...)
		},
		"two sockets": func(t *testing.T, b *bed) {
			dead := &sandbox.Socket{Mode: 0o666, Dial: func(context.Context) (net.Conn, error) { return nil, errDead }}
			r := b.mounted(t, []sandbox.Mount{{Target: "/s1", Source: dead}, {Target: "/s2", Source: shouter()}}, "spawn", "ask", "/s1", "x", ";", "ask", "/s2", "yes").succeeds(t)
			wantOut(t, r, "YES")
		},
		"many connections": func(t *testing.T, b *bed) {
			args := []string{}
			for range 40 {
				args = append(args, "spawn", "ask", "/sock", "x", ";")
			}
			wantOut(t, b.mounted(t, one("/sock", shouter()), append(args, "ask", "/sock", "last")...).succeeds(t), "LAST")
		},
		"socket takes no datagrams": func(t *testing.T, b *bed) {
			b.mounted(t, one("/sock", shouter()), "fails", "protocol wrong type", "datagram", "/sock").succeeds(t)
		},
		"connections end with the step": func(t *testing.T, b *bed) {
			ended := make(chan error, 1)
			s := &sandbox.Socket{Mode: 0o600, Dial: func(context.Context) (net.Conn, error) {
				near, far := net.Pipe()
				go func() {
					_, _ = far.Write([]byte("hold on")) // it is not read
					_, err := far.Read(make([]byte, 1))
					ended <- err
				}()
				return near, nil
			}}
			b.mounted(t, one("/sock", s), "spawn", "ask", "/sock", "", ";", "await", "/proc/2", ";", "sleep", "200ms")
			select {
			case <-ended:
			case <-t.Context().Done():
				t.Error("it is still open")
			default:
			}
		},
	}
}

var errDead = errors.New("the agent is dead")
