package native

import (
	"cmp"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// The seccomp filter of steps refuses what Docker's default profile refuses to a container with Docker's default capabilities
// (moby/profiles seccomp v0.2.4, default.json, Linux 4.8 or newer), for programs of this architecture and for those of its
// 32-bit predecessor. Programs of another one, x32 among them, can make no system call at all.
//
// What the kernel may learn one day is refused with ENOSYS, so that programs try something older, and so is clone3, whose flags
// no filter can see. Everything else that is refused fails with EPERM.

const (
	// lastKnown is the last number that the profile knows; they are the same in all tables from 424 on.
	lastKnown = 471 // rseq_slice_yield

	// Offsets in struct seccomp_data of the low halves, on little-endian machines.
	offsetNumber = 0
	offsetArch   = 4
	offsetArgs   = 16

	// newNamespaces are the flags of clone(2) that make one.
	newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
		unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
)

// table is how an architecture numbers its system calls.
type table struct {
	arch   uint32   // AUDIT_ARCH_*
	denied []uint32 // refused whatever their arguments
	// Calls whose arguments are looked at; 0 if there is no such call.
	clone, clone3, personality, socket, mknod, mknodat uint32
}

// commonDenied are those that have the same number everywhere.
func commonDenied() []uint32 {
	return []uint32{
		425, 426, 427, // io_uring_setup, io_uring_enter, io_uring_register
		428, 429, 430, 431, 432, 433, // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick
		438, 440, 442, 443, // pidfd_getfd, process_madvise, mount_setattr, quotactl_fd
		450, 459, 460, 461, // set_mempolicy_home_node, lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules
		467, 468, 469, 470, 471, // open_tree_attr, file_getattr, file_setattr, listns, rseq_slice_yield
	}
}

type code = []unix.SockFilter

func statement(op uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: op, K: k} }

// jump compares the accumulator with k and skips as many instructions as it says.
func jump(op uint16, k uint32, ifTrue, ifFalse uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | op, Jt: ifTrue, Jf: ifFalse, K: k}
}

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

func loadArg(n uint32) unix.SockFilter { return load(offsetArgs + 8*n) }

func result(action uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, action) }

func failWith(errno unix.Errno) unix.SockFilter {
	return result(unix.SECCOMP_RET_ERRNO | uint32(errno))
}

func allow() unix.SockFilter { return result(unix.SECCOMP_RET_ALLOW) }

// stepFilter is the filter. With notify set, making a device is a question to whoever listens.
func stepFilter(notify bool) code {
	var all code
	all = append(all, load(offsetArch))
	for _, t := range tables() {
		body := append(code{load(offsetNumber)}, t.search(notify)...)
		// Jumps of a condition are short, those without one are not.
		all = append(all, jump(unix.BPF_JEQ, t.arch, 1, 0), statement(unix.BPF_JMP|unix.BPF_JA, uint32(len(body)))) //nolint:gosec // hundreds
		all = append(all, body...)
	}
	return append(all, failWith(unix.EPERM))
}

// from is what happens to system calls from number on, up to the next one.
type from struct {
	number uint32
	do     code
}

// search is code that does what t says about the number in the accumulator.
func (t *table) search(notify bool) code {
	special := map[uint32]code{t.clone3: {failWith(unix.ENOSYS)}}
	for _, n := range append(commonDenied(), t.denied...) {
		special[n] = code{failWith(unix.EPERM)}
	}
	special[t.clone] = filterClone()
	special[t.personality] = filterPersonality()
	special[t.socket] = filterSocket()
	if notify {
		if t.mknod != 0 {
			special[t.mknod] = filterMknod(1)
		}
		special[t.mknodat] = filterMknod(2)
	}
	plan := []from{{0, code{allow()}}}
	for n, do := range special {
		plan = append(plan, from{n, do})
		if _, ok := special[n+1]; !ok {
			plan = append(plan, from{n + 1, code{allow()}})
		}
	}
	// Later entries win over earlier ones with the same number: 0 may be special.
	slices.SortStableFunc(plan, func(a, b from) int { return cmp.Compare(a.number, b.number) })
	plan = slices.DeleteFunc(plan, func(f from) bool { return f.number > lastKnown })
	plan = append(plan, from{lastKnown + 1, code{failWith(unix.ENOSYS)}})
	return binarySearch(plan)
}

// binarySearch is code that finds the last entry of plan that is not above the accumulator.
func binarySearch(plan []from) code {
	if len(plan) == 1 {
		return plan[0].do
	}
	mid := len(plan) / 2
	below, rest := binarySearch(plan[:mid]), binarySearch(plan[mid:])
	out := code{jump(unix.BPF_JGE, plan[mid].number, 0, 1), statement(unix.BPF_JMP|unix.BPF_JA, uint32(len(below)))} //nolint:gosec // hundreds
	if len(below) <= math.MaxUint8 {
		out = code{jump(unix.BPF_JGE, plan[mid].number, uint8(len(below)), 0)}
	}
	return append(append(out, below...), rest...)
}

// filterClone refuses to make namespaces.
func filterClone() code {
	return code{loadArg(0), jump(unix.BPF_JSET, newNamespaces, 0, 1), failWith(unix.EPERM), allow()}
}

// filterPersonality allows PER_LINUX and PER_LINUX32, each also with UNAME26, and the question which one it is.
func filterPersonality() code {
	return code{
		loadArg(0),
		jump(unix.BPF_JEQ, 0, 5, 0), jump(unix.BPF_JEQ, 8, 4, 0), jump(unix.BPF_JEQ, 0x20000, 3, 0), jump(unix.BPF_JEQ, 0x20008, 2, 0),
		jump(unix.BPF_JEQ, math.MaxUint32, 1, 0), failWith(unix.EPERM), allow(),
	}
}

// filterSocket refuses AF_ALG, AF_VSOCK and families that nobody knows.
func filterSocket() code {
	return code{
		loadArg(0),
		jump(unix.BPF_JGT, unix.AF_MCTP, 2, 0), jump(unix.BPF_JEQ, unix.AF_ALG, 1, 0), jump(unix.BPF_JEQ, unix.AF_VSOCK, 0, 1),
		failWith(unix.EPERM), allow(),
	}
}

// filterMknod asks about device nodes; arg is the number of the argument that is the mode, the device comes after it.
func filterMknod(arg uint32) code {
	return code{
		loadArg(arg), statement(unix.BPF_ALU|unix.BPF_AND|unix.BPF_K, unix.S_IFMT),
		jump(unix.BPF_JEQ, unix.S_IFCHR, 1, 0), jump(unix.BPF_JEQ, unix.S_IFBLK, 0, 1),
		result(unix.SECCOMP_RET_USER_NOTIF), allow(),
	}
}
