// Package sandbox says what a sandbox engine does: run one RUN step as full root over a stack of layers,
// out of reach of the builder's files, environment and credentials, and report what the step changed.
package sandbox

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/rootfs"
)

// Engine runs steps. It may be used from many goroutines; steps without a common lower run in parallel.
type Engine interface {
	// Run executes step to its end. A step that ends with a code other than 0 or by a signal is an *ExitError.
	// When ctx ends, every process of the step is killed and ctx's cause is returned.
	// The caller closes the Outcome.
	Run(ctx context.Context, step *Step) (Outcome, error)
	// Close kills whatever still runs and frees everything. Outcomes are invalid afterwards.
	Close() error
}

// CacheReader is an engine that can say what became of a cache.
type CacheReader interface {
	// CacheChanges is what steps changed in the cache with this ID since it was made: the difference to what it had at first.
	// It is read while no step uses the cache. If there is none, reading is an error that Is fs.ErrNotExist.
	CacheChanges(id string) layer.Changes
}

// Outcome is what a successful step left behind.
type Outcome interface {
	// Changes is what the step changed. It must be read before Keep and Close.
	Changes() layer.Changes
	// Keep tells the engine that the step's result is from now on known as the lower with this chain ID,
	// so that later steps can stand on it without its blob being opened.
	Keep(id digest.Digest) error
	// Close lets the engine forget what Keep did not name. It is idempotent.
	Close() error
}

// Network is what a step can reach.
type Network uint8

// The networks of RUN --network.
const (
	NetworkDefault Network = iota // the builder's own network
	NetworkHost                   // the same, asked for by name
	NetworkNone                   // no interface but loopback
)

// Step is one command to run. It is a plain value; engines do not change it.
type Step struct {
	// Name is for logs and errors: "build/3".
	Name string
	// Lowers is the root file system, bottom first. It may be empty: an empty root.
	Lowers []rootfs.Lower
	// Args is the command; Args[0] is looked up in the PATH of Env if it has no slash.
	Args []string
	// Env is the whole environment of the step.
	Env []string
	// Dir is the absolute working directory; it exists.
	Dir string
	// User is who the step runs as, already resolved.
	User User
	// Hostname is "buildkitsandbox" unless the user says otherwise.
	Hostname string
	// ExtraHosts are lines added to /etc/hosts.
	ExtraHosts []Host
	// Mounts are made in this order, before Files. Neither is ever part of the changes, nor is what an engine has to
	// make in the root to mount them on.
	Mounts []Mount
	// Files are read-only files shown to the step only: heredoc scripts below /dev/pipes, secrets. No disk holds them.
	Files   []File
	Network Network
	// Latest, if not nil, is a time that nothing the step leaves may be younger than, neither in its changes nor for
	// steps that stand on them: what is younger gets this time when the changes have been read.
	Latest *time.Time
	// ShmSize is the size of /dev/shm in bytes; 0 means 64 MiB.
	ShmSize int64
	// Stdin may be nil: /dev/null. Stdout and Stderr receive raw bytes as they come; neither may be nil.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// User is a resolved user.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups, GID not repeated.
	Groups []uint32
}

// File is a small read-only file; Path is absolute.
type File struct {
	Path     string
	Mode     uint32
	UID, GID uint32
	Data     []byte
}

// Mount is a file system, a directory or a file that a step sees besides its root.
type Mount struct {
	// Target is absolute and clean. Symbolic links in it are resolved inside the root.
	Target string
	// Source is what is seen there.
	Source   MountSource
	ReadOnly bool
}

// MountSource is one of *Bind, *Cache, *Tmpfs, *Socket.
type MountSource interface{ mountSource() }

// Bind is a file or directory of a stack of layers. If the mount can be written, what is written is gone after the step.
type Bind struct {
	Lowers []rootfs.Lower
	// Path is in the stack, relative and clean, "." for all of it. No part of it is a symbolic link.
	Path string
}

// Cache is a tree that outlives the step: all steps of an engine that name ID see the same files at the same time.
// An engine that has no cache with this ID makes one; the other fields but Path are for that. An engine may lose its
// caches if it has to start anew after a crash.
type Cache struct {
	ID string
	// Lowers are what is in it at first. Without them it is an empty directory with Mode, UID and GID.
	Lowers         []rootfs.Lower
	Mode, UID, GID uint32
	// Owned says that Mode, UID and GID are those of its top directory also if there are Lowers, which cannot say them.
	Owned bool
	// Path is what of the cache the step sees, as in Bind: a directory, or a file. It exists.
	Path string
}

// Tmpfs is empty at first and gone after the step.
type Tmpfs struct {
	// Size is in bytes; 0 means no limit of its own.
	Size int64
}

// Socket is a unix stream socket; for each connection that the step makes to it, Dial is called and the two are joined
// until either side ends or the step does. A side that ends only its writing does not end the other's, if what Dial
// returns has a CloseWrite.
type Socket struct {
	Dial           func(ctx context.Context) (net.Conn, error)
	Mode, UID, GID uint32
}

func (*Bind) mountSource()   {}
func (*Cache) mountSource()  {}
func (*Tmpfs) mountSource()  {}
func (*Socket) mountSource() {}

// Host is one line of /etc/hosts.
type Host struct {
	Name, IP string
}

// UnsupportedError is a step that an engine cannot run as it should; another may. Nothing of the step stays.
type UnsupportedError struct{ What string }

// Error says what cannot be done.
func (e *UnsupportedError) Error() string { return e.What }

// Hint says what to do.
func (e *UnsupportedError) Hint() string { return "Use --sandbox=sentry for this build." }

// MemoryError is a sandbox that the kernel killed because the container had no memory left.
type MemoryError struct {
	// LimitBytes is the container's memory limit; 0 if it has none of its own.
	LimitBytes int64
}

// Error says what happened.
func (e *MemoryError) Error() string {
	const mebibyte = 1 << 20
	if e.LimitBytes == 0 {
		return "the sandbox was killed: the machine has no memory left"
	}
	return fmt.Sprintf("the sandbox was killed: the container's memory limit, %d MiB, was reached", e.LimitBytes/mebibyte)
}

// Hint says what to do.
func (e *MemoryError) Hint() string {
	return "Raise the container's memory limit, or run fewer steps at a time with --jobs."
}

// ExitError is a command that ran and did not succeed.
type ExitError struct {
	// Code is the exit code, or -1 if a signal ended the command (its number is then in Signal).
	Code   int
	Signal int
}

// Error says how the command ended.
func (e *ExitError) Error() string {
	if e.Signal != 0 {
		return fmt.Sprintf("command was killed by signal %d", e.Signal)
	}
	return fmt.Sprintf("command exited with code %d", e.Code)
}

// ExitCode is what the builder exits with, as kaniko does: the command's code, or 255 after a signal.
func (e *ExitError) ExitCode() int {
	if e.Signal != 0 {
		return 255
	}
	return e.Code
}
