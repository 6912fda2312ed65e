package plan

import "fmt"

// Network is what a RUN can reach.
type Network uint8

// The networks of RUN --network.
const (
	NetworkDefault Network = iota // the builder's own
	NetworkHost                   // the same, asked for by name
	NetworkNone                   // no interface but loopback
)

// Mount is a --mount of a RUN.
type Mount struct {
	// Target is absolute, clean and not "/". Symbolic links in it are those of the stage and of the mounts before.
	// It is empty for a secret that the step sees as a variable only.
	Target string
	Source MountSource
	// ReadOnly is always set for secrets, and means nothing for sockets.
	ReadOnly bool
}

// MountSource is one of *BindMount, *CacheMount, *TmpfsMount, *SecretMount, *SSHMount.
type MountSource interface{ mount() }

// BindMount shows a file or directory. What is written to it is gone after the step.
type BindMount struct {
	From From
	// Path is in From, absolute and clean, "/" for all of it. Symbolic links in it are followed inside From.
	Path string
}

// CacheMount is a directory that outlives the step.
type CacheMount struct {
	// ID has the namespace of BUILDKIT_CACHE_MOUNT_NS before a slash.
	ID      string
	Sharing Sharing
	// From says what is in the cache at first; nil means nothing. Caches of one ID that start from different files are
	// different caches.
	From *From
	// Path is what of the cache the step sees, absolute and clean, "/" for all of it.
	Path string
	// Owner, if not nil, says that the step sees an empty directory of its own with this owner and mode instead.
	Owner *Owner
}

// Owner is who a file belongs to, and its permissions.
type Owner struct{ Mode, UID, GID uint32 }

// Sharing says what happens if two steps want the same cache at the same time.
type Sharing uint8

// The kinds of sharing.
const (
	SharingShared  Sharing = iota // both use it
	SharingPrivate                // the second gets another one
	SharingLocked                 // the second waits
)

// TmpfsMount is an empty directory in memory.
type TmpfsMount struct {
	// Size is in bytes; 0 means no limit of its own.
	Size int64
}

// SecretMount shows a secret of the user's: as a file at the mount's target, as the variable Env, or as both.
type SecretMount struct {
	ID, Env string
	// Required says that the build fails if the user gave no such secret; else there is no file, and an empty variable.
	Required bool
	Owner    Owner
}

// SSHMount is a socket to an agent of the user's.
type SSHMount struct {
	ID string
	// Required says that the build fails if the user gave no such agent; else there is no socket.
	Required bool
	Owner    Owner
}

func (*BindMount) mount()   {}
func (*CacheMount) mount()  {}
func (*TmpfsMount) mount()  {}
func (*SecretMount) mount() {}
func (*SSHMount) mount()    {}

// String is the network as in RUN --network.
func (n Network) String() string {
	switch n {
	case NetworkHost:
		return "host"
	case NetworkNone:
		return "none"
	}
	return "default"
}

// String is the mount for people.
func (m Mount) String() string {
	kind := ""
	switch src := m.Source.(type) {
	case *BindMount:
		kind = fmt.Sprintf("bind %s of %s", quote(src.Path), src.From)
	case *CacheMount:
		kind = src.text()
	case *TmpfsMount:
		kind = "tmpfs"
		if src.Size > 0 {
			kind += fmt.Sprintf(" of %d bytes", src.Size)
		}
	case *SecretMount:
		kind = "secret " + quote(src.ID) + field(" env=", src.Env)
		if m.Target != "" {
			kind += src.Owner.text()
		}
		kind += required(src.Required)
	case *SSHMount:
		kind = "ssh " + quote(src.ID) + src.Owner.text() + required(src.Required)
	}
	if m.ReadOnly {
		kind += " ro"
	}
	return kind + field(" on ", m.Target)
}

func (c *CacheMount) text() string {
	s := "cache " + quote(c.ID) + [...]string{SharingShared: "", SharingPrivate: " private", SharingLocked: " locked"}[c.Sharing]
	if c.From != nil {
		s += " from " + c.From.String()
	}
	if c.Path != "/" {
		s += " path=" + quote(c.Path)
	}
	if c.Owner != nil {
		s += c.Owner.text()
	}
	return s
}

func (o Owner) text() string { return fmt.Sprintf(" mode=%04o owner=%d:%d", o.Mode, o.UID, o.GID) }

func required(yes bool) string {
	if yes {
		return " required"
	}
	return ""
}
