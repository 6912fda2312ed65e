// Package sandbox says what a sandbox engine does: run one RUN step as full root over a stack of layers,
// out of reach of the builder's files, environment and credentials, and report what the step changed.
package sandbox

import (
	"context"
	"fmt"
	"io"

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
	// Files are read-only files shown to the step only, in directories that exist for the step only
	// (heredoc scripts below /dev/pipes). They are never part of the changes.
	Files   []File
	Network Network
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
	Path string
	Mode uint32
	Data []byte
}

// Host is one line of /etc/hosts.
type Host struct {
	Name, IP string
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
