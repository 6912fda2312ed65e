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
	case "see": // see LENGTH: the secret in the file and in the variable SECRET is that long
		data, err := os.ReadFile("/run/secrets/s")
		if err != nil || fmt.Sprint(len(data), len(os.Getenv("SECRET"))) != os.Args[2] {
			fmt.Println(len(data), len(os.Getenv("SECRET")), err)
			os.Exit(1)
		}
	case "blind":
		if _, err := os.Lstat("/run"); err == nil || os.Getenv("SECRET") != "" {
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
