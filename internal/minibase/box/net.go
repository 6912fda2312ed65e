package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// getent looks up hosts, passwd and group entries.
func getent(w *world, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: getent hosts|passwd|group NAME")
	}
	switch args[0] {
	case "hosts":
		addrs, err := net.LookupHost(args[1])
		if err != nil {
			return exitCode(2)
		}
		fmt.Fprintf(w.out, "%s %s\n", addrs[0], args[1])
	case "passwd", "group":
		lines, err := w.readLines([]string{"/etc/" + args[0]})
		if err != nil {
			return err
		}
		for _, l := range lines {
			if f := strings.Split(l, ":"); len(f) > 2 && (f[0] == args[1] || f[2] == args[1]) {
				_, err := fmt.Fprintln(w.out, l)
				return err
			}
		}
		return exitCode(2)
	}
	return nil
}

// wget fetches a plain http URL: wget [-q] [-O FILE] URL.
func wget(w *world, args []string) (err error) {
	o, rest, err := getopt(args, "q O:")
	if err != nil {
		return err
	}
	if len(rest) != 1 || !strings.HasPrefix(rest[0], "http://") {
		return errors.New("needs one http URL")
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(rest[0], "http://"), "/")
	addr := host
	if !strings.Contains(addr, ":") {
		addr += ":80"
	}
	conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /%s HTTP/1.0\r\nHost: %s\r\nUser-Agent: box\r\n\r\n", path, host)
	br := bufio.NewReader(conn)
	status, err := br.ReadString('\n')
	if err != nil {
		return err
	}
	if f := strings.Fields(status); len(f) < 2 || f[1] != "200" {
		return fmt.Errorf("server answered %s", strings.TrimSpace(status))
	}
	for line := ""; line != "\r\n"; {
		if line, err = br.ReadString('\n'); err != nil {
			return err
		}
	}
	out := w.out
	if name := o.last("O", path[strings.LastIndexByte(path, '/')+1:]); name != "-" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	_, err = io.Copy(out, br)
	return err
}

// nc connects standard input and output with a TCP address, or with the first caller of a port or a socket:
// nc HOST PORT, nc -l -p PORT, nc -l -U PATH.
func nc(w *world, args []string) error {
	o, rest, err := getopt(args, "l p: w: z U:")
	if err != nil {
		return err
	}
	var conn net.Conn
	if o.has("l") {
		network, addr := "tcp", ":"+o.last("p", strings.Join(rest, ""))
		if o.has("U") {
			network, addr = "unix", o.last("U", "")
		}
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		defer l.Close()
		if conn, err = l.Accept(); err != nil {
			return err
		}
	} else {
		if len(rest) != 2 {
			return errors.New("needs a host and a port")
		}
		if conn, err = net.DialTimeout("tcp", net.JoinHostPort(rest[0], rest[1]), 10*time.Second); err != nil {
			return err
		}
	}
	defer conn.Close()
	if o.has("z") {
		return nil
	}
	go func() {
		_, _ = io.Copy(conn, w.in) // the other side sees a short stream
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_, err = io.Copy(w.out, conn)
	return err
}
