package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// ask connects to the unix socket p, says s, and prints what comes back until the other side ends.
func ask(p, s string) error {
	c, err := net.Dial("unix", p)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(c, s); err != nil {
		return err
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}

// loopback talks to itself over TCP and UDP, with IPv4 and IPv6.
func loopback([]string) error {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		l, err := net.Listen("tcp", host+":0")
		if err != nil {
			return err
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				fmt.Fprintf(c, "hello\n")
				c.Close()
			}
		}()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		if _, err := io.Copy(os.Stdout, c); err != nil {
			return err
		}
		u, err := net.ListenPacket("udp", host+":0")
		if err != nil {
			return err
		}
		if _, err := u.WriteTo([]byte("datagram\n"), u.LocalAddr()); err != nil {
			return err
		}
		buf := make([]byte, 100)
		n, _, err := u.ReadFrom(buf)
		if err != nil {
			return err
		}
		os.Stdout.Write(buf[:n])
	}
	return nil
}

// interfaces prints the name, the addresses and the flags of each network interface.
func interfaces([]string) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		words := []string{i.Name}
		for _, a := range addrs {
			words = append(words, a.String())
		}
		if i.Flags&net.FlagUp != 0 {
			words = append(words, "up")
		}
		fmt.Println(strings.Join(words, " "))
	}
	return nil
}
