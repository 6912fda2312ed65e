package lab

import (
	"os"
	"syscall"
)

// exitCode is the code as a shell shows it: 128 and the signal for a program that a signal ended.
func exitCode(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
