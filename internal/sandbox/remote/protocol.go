package remote

import (
	"time"

	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

// Request is what the builder asks; exactly one of its fields is set.
type Request struct {
	// Boot readies the child; what it holds is between an engine and its child.
	Boot    []byte
	Mount   *Mount
	Run     *Run
	Kill    *StepID
	Changes *StepID
	// CacheChanges asks for what became of a cache. A descriptor comes with it: the pipe to write that to.
	CacheChanges *CacheID
	Keep         *Keep
	Release      *StepID
	// Stop asks the child to end all steps and to remove what they have left; it takes no more of them.
	Stop bool
	// Check asks the child to try what it must not be able to do.
	Check bool
}

// Mount adds a lower. Its descriptor is the EROFS image.
type Mount struct {
	ID    string
	Patch rootfs.Patch
}

// Run starts a step and is answered when it has ended. Its descriptors are stdin if Stdin is set, stdout, stderr,
// and one more if any of Mounts is a Socket, see sockets.go.
type Run struct {
	Step       uint64
	Name       string
	Lowers     []string // bottom first
	Args       []string
	Env        []string
	Dir        string
	UID, GID   uint32
	Groups     []uint32
	Hostname   string
	Hosts      []byte
	ResolvConf []byte
	Mounts     []StepMount
	Files      []sandbox.File
	NoNetwork  bool
	Latest     *time.Time
	ShmSize    int64
	Stdin      bool

	connector *connector // set in the child
}

// StepID names a step. For Changes a descriptor comes with it: the pipe to write the changes to.
type StepID struct {
	Step uint64
}

// CacheID names a cache.
type CacheID struct {
	ID string
}

// Keep makes the upper of a step the lower ID.
type Keep struct {
	Step uint64
	ID   string
}

// Response answers a request.
type Response struct {
	Exit Exit
	// Unsupported is what the child cannot do, if it has to give up for that.
	Unsupported string
	// Missing says that there is no such cache.
	Missing bool
	// Report answers Check.
	Report []string
}

// Exit is how a step ended.
type Exit struct {
	Code   int
	Signal int
	// Start is set if the command could not be started at all.
	Start string
}
