// Command pause holds the namespaces of a pod: it waits for a signal, and collects the processes that have lost their parent.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range c {
		if s == syscall.SIGCHLD {
			for {
				if p, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); p <= 0 {
					break
				}
			}
			continue
		}
		return
	}
}
