package sentry

import (
	"fmt"
	"hako/internal/sandbox/remote"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/nsfs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

const (
	defaultUmask = 0o022
	// openFiles is the soft limit of descriptors; programs that close every possible one at start set the price of more.
	openFiles    = 1 << 16
	openFilesMax = 1 << 20
)

// defaultCapabilities are what BuildKit gives to a step without --security=insecure (containerd's defaultUnixCaps).
func defaultCapabilities() auth.CapabilitySet {
	return auth.CapabilitySetOfMany([]linux.Capability{
		linux.CAP_CHOWN, linux.CAP_DAC_OVERRIDE, linux.CAP_FSETID, linux.CAP_FOWNER, linux.CAP_MKNOD,
		linux.CAP_NET_RAW, linux.CAP_SETGID, linux.CAP_SETUID, linux.CAP_SETFCAP, linux.CAP_SETPCAP,
		linux.CAP_NET_BIND_SERVICE, linux.CAP_SYS_CHROOT, linux.CAP_KILL, linux.CAP_AUDIT_WRITE,
	})
}

// credentials are those of the step's first process after execve: only root keeps capabilities.
func (b *box) credentials(req *remote.Run) *auth.Credentials {
	caps := auth.TaskCapabilities{BoundingCaps: defaultCapabilities()}
	if req.UID == 0 {
		caps.PermittedCaps, caps.EffectiveCaps = caps.BoundingCaps, caps.BoundingCaps
	}
	groups := make([]auth.KGID, len(req.Groups))
	for i, g := range req.Groups {
		groups[i] = auth.KGID(g)
	}
	return auth.NewUserCredentials(auth.KUID(req.UID), auth.KGID(req.GID), groups, &caps, b.creds.UserNamespace)
}

func stepLimits() (*limits.LimitSet, error) {
	ls, err := limits.NewLinuxDistroLimitSet()
	if err != nil {
		return nil, fmt.Errorf("make limits: %w", err)
	}
	ls.SetUnchecked(limits.NumberOfFiles, limits.Limit{Cur: openFiles, Max: openFilesMax})
	ls.SetUnchecked(limits.Core, limits.Limit{Cur: 0, Max: limits.Infinity})
	return ls, nil
}

// newProcess creates the first process of a step without starting it. stdio is as in [remote.Run] and stays the caller's.
func (b *box) newProcess(s *step, stdio []*os.File) error {
	req, k := s.req, b.kernel
	ls, err := stepLimits()
	if err != nil {
		return err
	}
	userns := b.creds.UserNamespace
	uts := kernel.NewUTSNamespace(req.Hostname, "", userns)
	uts.SetInode(b.namespaceInode(uts))
	args := kernel.CreateProcessArgs{
		Argv: req.Args, Envv: req.Env, WorkingDirectory: req.Dir, Credentials: b.credentials(req), Umask: defaultUmask,
		Limits: ls, MaxSymlinkTraversals: linux.MaxSymlinkTraversals, UTSNamespace: uts,
		ContainerID: s.container(), PIDNamespace: k.RootPIDNamespace().NewChild(b.ctx, k, userns),
	}
	return b.create(s, &args, stdio)
}

func (b *box) openStdio(ctx context.Context, args *kernel.CreateProcessArgs, stdio []*os.File) error {
	root := args.MountNamespace.Root(b.ctx)
	defer root.DecRef(b.ctx)
	table := args.FDTable
	install := func(n int, f *vfs.FileDescription, err error) error {
		if err != nil {
			return fmt.Errorf("open descriptor %d of the step: %w", n, err)
		}
		defer f.DecRef(ctx)
		if _, err := table.NewFDAt(ctx, int32(n), f, kernel.FDFlags{}); err != nil { //nolint:gosec // 0, 1 or 2
			return fmt.Errorf("install descriptor %d of the step: %w", n, err)
		}
		return nil
	}
	first := 0
	if len(stdio) == 2 {
		f, err := b.kernel.VFS().OpenAt(ctx, b.creds, at(root, "/dev/null"), &vfs.OpenOptions{Flags: linux.O_RDONLY})
		if err := install(0, f, err); err != nil {
			return err
		}
		first = 1
	}
	for i, h := range stdio {
		fd, err := unix.FcntlInt(h.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return fmt.Errorf("duplicate descriptor %d of the step: %w", first+i, err)
		}
		f, err := host.NewFD(ctx, b.kernel.HostMount(), fd, &host.NewFDOptions{
			VirtualOwner: true, UID: args.Credentials.RealKUID, GID: args.Credentials.RealKGID,
		})
		if err := install(first+i, f, err); err != nil {
			return err
		}
	}
	return nil
}

// find looks name up as Go's exec.LookPath does, because that is what runc calls: in the step's root, as the step's user.
func (b *box) find(ctx context.Context, args *kernel.CreateProcessArgs) (string, error) {
	name := args.Argv[0]
	root := args.MountNamespace.Root(b.ctx)
	defer root.DecRef(b.ctx)
	if strings.Contains(name, "/") {
		p := name
		if !path.IsAbs(p) {
			p = path.Join(args.WorkingDirectory, p)
		}
		if err := b.executable(ctx, root, args.Credentials, p); err != nil {
			return "", &remote.StartError{Reason: fmt.Sprintf("exec: %q: %s", name, lookupReason(err, name))}
		}
		return p, nil
	}
	for _, dir := range strings.Split(lookupEnv(args.Envv, "PATH"), ":") {
		if dir == "" {
			dir = args.WorkingDirectory
		}
		if p := path.Join(dir, name); path.IsAbs(p) && b.executable(ctx, root, args.Credentials, p) == nil {
			return p, nil
		}
	}
	return "", &remote.StartError{Reason: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func (b *box) executable(ctx context.Context, root vfs.VirtualDentry, creds *auth.Credentials, p string) error {
	pop := at(root, p)
	pop.FollowFinalSymlink = true
	st, err := b.kernel.VFS().StatAt(ctx, creds, pop, &vfs.StatOptions{Mask: linux.STATX_TYPE})
	if err != nil {
		return err
	}
	if st.Mode&linux.S_IFMT == linux.S_IFDIR {
		return linuxerr.EISDIR
	}
	return b.kernel.VFS().AccessAt(ctx, creds, vfs.MayExec, pop)
}

func lookupReason(err error, name string) string {
	switch {
	case linuxerr.Equals(linuxerr.ENOENT, err):
		return fmt.Sprintf("stat %s: no such file or directory", name)
	case linuxerr.Equals(linuxerr.ENOTDIR, err):
		return fmt.Sprintf("stat %s: not a directory", name)
	case linuxerr.Equals(linuxerr.EACCES, err):
		return "permission denied"
	}
	return err.Error()
}

func lookupEnv(env []string, name string) string {
	value := ""
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// create builds the file tree and the process in it.
func (b *box) create(s *step, args *kernel.CreateProcessArgs, stdio []*os.File) error {
	k := b.kernel
	ipc := kernel.NewIPCNamespace(args.Credentials.UserNamespace)
	ipc.SetInode(b.namespaceInode(ipc))
	if err := ipc.InitPosixQueues(b.ctx, k.VFS(), b.creds); err != nil {
		return fmt.Errorf("make message queues: %w", err)
	}
	args.IPCNamespace = ipc
	// The process takes its own references, these are ours.
	defer ipc.DecRef(b.ctx)
	defer args.UTSNamespace.DecRef(b.ctx)
	root, err := b.newRoot(args.NewContext(k), s.req)
	if err != nil {
		return err
	}
	s.root = root
	args.MountNamespace = root.mounts
	ctx := args.NewContext(k)
	args.FDTable = k.NewFDTable()
	defer args.FDTable.DecRef(ctx)
	if err := b.openStdio(ctx, args, stdio); err != nil {
		return err
	}
	if args.Filename, err = b.find(ctx, args); err != nil {
		return err
	}
	root.mounts.IncRef() // CreateProcess takes one over
	tg, _, err := k.CreateProcess(*args)
	if err != nil {
		return &remote.StartError{Reason: loadReason(args.Filename, err)}
	}
	if s.req.NoNetwork {
		if err := leaveNetwork(tg); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = tg
	return nil
}

// loadReason is why an executable cannot be loaded, without the kernel's wrapping.
func loadReason(name string, err error) string {
	if rest, ok := strings.CutPrefix(err.Error(), "failed to load "); ok {
		return "exec " + rest
	}
	return fmt.Sprintf("exec %s: %v", name, err)
}

// namespaceInode makes the reference counter of a namespace.
func (b *box) namespaceInode(ns vfs.Namespace) *nsfs.Inode {
	inode, ok := b.kernel.GetNamespaceInode(b.ctx, ns).(*nsfs.Inode)
	if !ok {
		panic("gVisor's kernel keeps namespaces in nsfs") // true of the pinned version, and of all before it
	}
	return inode
}
