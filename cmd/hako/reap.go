package main

import (
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// As process 1 of a container we inherit every orphan, and nobody else collects them when they end.
// But we must not collect the children that os/exec waits for: their Wait would fail.
// The two can be told apart, because Go holds a pidfd of each child it started until it has waited for it,
// and /proc/self/fdinfo names the process of a pidfd. A zombie child that no pidfd of ours names, neither before
// nor after we saw it, is an orphan. Where pidfds or fdinfo cannot be had, we collect nothing.

// reapOrphans starts collecting orphans and returns how to stop it.
func reapOrphans() (stop func()) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return func() {}
	}
	_ = unix.Close(fd) // it was only a question
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case <-done:
				return
			case <-ended:
				reapOnce()
			}
		}
	}()
	return func() {
		signal.Stop(ended)
		close(done)
		<-finished
	}
}

// reapOnce collects every orphan that has ended.
func reapOnce() {
	before, err := ownChildren()
	if err != nil {
		return
	}
	zombies := zombieChildren(os.Getpid())
	after, err := ownChildren()
	if err != nil {
		return
	}
	for _, pid := range zombies {
		if !before[pid] && !after[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // nobody wants to know how it ended
		}
	}
}

// ownChildren are the processes that we hold pidfds of.
func ownChildren() (map[int]bool, error) {
	const dir = "/proc/self/fdinfo"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	own := map[int]bool{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if os.IsNotExist(err) {
			continue // closed since we listed it
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			if pid, ok := strings.CutPrefix(line, "Pid:"); ok {
				if n, err := strconv.Atoi(strings.TrimSpace(pid)); err == nil {
					own[n] = true
				}
			}
		}
	}
	return own, nil
}

// zombieChildren are the children of parent that have ended and wait to be collected.
func zombieChildren(parent int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var zombies []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // gone, or not ours to see
		}
		// pid (comm) state ppid …; comm may hold anything, so look behind the last bracket: proc(5).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			zombies = append(zombies, pid)
		}
	}
	return zombies
}
