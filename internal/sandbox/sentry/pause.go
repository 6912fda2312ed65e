package sentry

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/host"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// PID 1 of the kernel does nothing and never ends. The kernel counts as shut down once its first process is gone,
// so the steps, each the first process of its own PID namespace, cannot be that process.

const (
	elfHeaderSize   = 64
	programHeader   = 56
	pauseLoadAddr   = 0x400000
	elfExecutable   = 2
	segmentLoad     = 1
	segmentReadExec = 5
)

// staticELF wraps machine code that needs neither stack nor data into the smallest executable a loader accepts.
func staticELF(machine uint16, code []byte) []byte {
	le := binary.LittleEndian
	const start = elfHeaderSize + programHeader
	b := make([]byte, start+len(code))
	copy(b, "\x7fELF\x02\x01\x01") // 64 bit, little-endian, version 1
	le.PutUint16(b[16:], elfExecutable)
	le.PutUint16(b[18:], machine)
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], pauseLoadAddr+start)
	le.PutUint64(b[32:], elfHeaderSize)
	le.PutUint16(b[52:], elfHeaderSize)
	le.PutUint16(b[54:], programHeader)
	le.PutUint16(b[56:], 1)
	p := b[elfHeaderSize:]
	le.PutUint32(p[0:], segmentLoad)
	le.PutUint32(p[4:], segmentReadExec)
	le.PutUint64(p[16:], pauseLoadAddr)
	le.PutUint64(p[24:], pauseLoadAddr)
	le.PutUint64(p[32:], uint64(len(b)))
	le.PutUint64(p[40:], uint64(len(b)))
	le.PutUint64(p[48:], 1<<16) // arm64 may have pages of 64 KiB
	copy(b[start:], code)
	return b
}

func (b *box) startPause() error {
	fd, err := unix.MemfdCreate("pause", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create a memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "pause")
	defer func() { _ = f.Close() }() // the kernel holds its own duplicate
	if _, err := f.Write(staticELF(machine, pauseCode())); err != nil {
		return fmt.Errorf("write the program: %w", err)
	}
	if err := f.Chmod(0o755); err != nil {
		return fmt.Errorf("make the program executable: %w", err)
	}
	ls, err := limits.NewLinuxDistroLimitSet()
	if err != nil {
		return fmt.Errorf("make limits: %w", err)
	}
	mounts, err := b.kernel.VFS().NewMountNamespace(b.ctx, b.creds, "none", tmpfs.Name, &vfs.MountOptions{}, b.kernel)
	if err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	mounts.IncRef() // for good; the process takes the reference we have
	b.ctx = supervisor{Context: b.kernel.SupervisorContext(), mounts: mounts}
	args := kernel.CreateProcessArgs{
		Argv: []string{"/pause"}, WorkingDirectory: "/", Credentials: b.creds, Umask: defaultUmask, Limits: ls,
		MaxSymlinkTraversals: linux.MaxSymlinkTraversals,
		UTSNamespace:         b.kernel.RootUTSNamespace(), IPCNamespace: b.kernel.RootIPCNamespace(),
		ContainerID: "pause", PIDNamespace: b.kernel.RootPIDNamespace(), MountNamespace: mounts,
	}
	ctx := args.NewContext(b.kernel)
	dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicate the program: %w", err)
	}
	if args.File, err = host.NewFD(ctx, b.kernel.HostMount(), dup, &host.NewFDOptions{VirtualOwner: true}); err != nil {
		return fmt.Errorf("import the program: %w", err)
	}
	defer args.File.DecRef(ctx)
	args.FDTable = b.kernel.NewFDTable()
	defer args.FDTable.DecRef(ctx)
	if _, _, err := b.kernel.CreateProcess(args); err != nil {
		return fmt.Errorf("create the process: %w", err)
	}
	if err := b.kernel.Start(); err != nil {
		return fmt.Errorf("start the kernel's tasks: %w", err)
	}
	return nil
}
