// Command step is the only program in the images that the tests of package build make.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "write":
		if err := os.WriteFile(os.Args[2], []byte(os.Args[3]), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "exit":
		os.Exit(42)
	case "hang":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("hanging")
		for {
			syscall.Pause()
		}
	default:
		os.Exit(3)
	}
}
