package native

// tables are those of x86-64 and of its 32-bit programs. x32 programs have the first one's architecture and numbers
// that are too high.
func tables() []table {
	return []table{
		{
			arch: 0xc000003e, // AUDIT_ARCH_X86_64
			denied: []uint32{
				103, 134, 136, 139, 153, // syslog, uselib, ustat, sysfs, vhangup
				155, 156, 163, 164, 165, 166, 167, 168, 169, // pivot_root, _sysctl, acct, settimeofday, mount, umount2, swapon, swapoff, reboot
				170, 171, 172, 173, 174, 175, 176, 177, 178, // sethostname, setdomainname, iopl, ioperm, create_module to query_module
				179, 180, 181, 182, 183, 184, 185, // quotactl, nfsservctl, getpmsg, putpmsg, afs_syscall, tuxcall, security
				212, 227, 236, 237, 238, 239, // lookup_dcookie, clock_settime, vserver, mbind, set_mempolicy, get_mempolicy
				246, 248, 249, 250, 256, // kexec_load, add_key, request_key, keyctl, migrate_pages
				272, 279, 298, 300, 304, 308, // unshare, move_pages, perf_event_open, fanotify_init, open_by_handle_at, setns
				312, 313, 320, 321, 323, 336, // kcmp, finit_module, kexec_file_load, bpf, userfaultfd, uprobe
			},
			clone: 56, clone3: 435, personality: 135, socket: 41, mknod: 133, mknodat: 259,
		},
		{
			arch: 0x40000003, // AUDIT_ARCH_I386
			denied: []uint32{
				17, 18, 21, 22, 25, 28, 31, 32, 34, 35, // break, oldstat, mount, umount, stime, oldfstat, stty, gtty, nice, ftime
				44, 48, 51, 52, 53, 56, 58, 59, // prof, signal, acct, umount2, lock, mpx, ulimit, oldolduname
				62, 67, 68, 69, 72, 73, 74, 79, // ustat, sigaction, sgetmask, ssetmask, sigsuspend, sigpending, sethostname, settimeofday
				84, 86, 87, 88, 89, 98, // oldlstat, uselib, swapon, reboot, readdir, profil
				101, 103, 109, 110, 111, 112, 113, 115, // ioperm, syslog, olduname, iopl, vhangup, idle, vm86old, swapoff
				121, 127, 128, 129, 130, 131, 134, 135, 137, // setdomainname, create_module to quotactl, bdflush, sysfs, afs_syscall
				149, 166, 167, 169, 188, 189, // _sysctl, vm86, query_module, nfsservctl, getpmsg, putpmsg
				217, 253, 264, 273, 274, 275, 276, // pivot_root, lookup_dcookie, clock_settime, vserver, mbind, get_mempolicy, set_mempolicy
				283, 286, 287, 288, 294, // kexec_load, add_key, request_key, keyctl, migrate_pages
				310, 317, 336, 338, 342, 346, // unshare, move_pages, perf_event_open, fanotify_init, open_by_handle_at, setns
				349, 350, 357, 374, 404, // kcmp, finit_module, bpf, userfaultfd, clock_settime64
			},
			clone: 120, clone3: 435, personality: 136, socket: 359, mknod: 14, mknodat: 297,
		},
	}
}
