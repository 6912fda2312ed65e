package native

// tables are those of AArch64 and of its 32-bit programs.
func tables() []table {
	return []table{
		{
			arch: 0xc00000b7, // AUDIT_ARCH_AARCH64
			denied: []uint32{
				18, 39, 40, 41, 42, 58, 60, // lookup_dcookie, umount2, mount, pivot_root, nfsservctl, vhangup, quotactl
				89, 97, 104, 105, 106, 112, 116, // acct, unshare, kexec_load, init_module, delete_module, clock_settime, syslog
				142, 161, 162, 170, // reboot, sethostname, setdomainname, settimeofday
				217, 218, 219, 224, 225, // add_key, request_key, keyctl, swapon, swapoff
				235, 236, 237, 238, 239, 241, 244, // mbind to move_pages, perf_event_open, arch_specific_syscall
				262, 265, 268, 272, 273, // fanotify_init, open_by_handle_at, setns, kcmp, finit_module
				280, 282, 294, // bpf, userfaultfd, kexec_file_load
			},
			clone: 220, clone3: 435, personality: 92, socket: 198, mknodat: 33,
		},
		{
			arch: 0x40000028, // AUDIT_ARCH_ARM
			denied: []uint32{
				21, 34, 51, 52, 62, 67, // mount, nice, acct, umount2, ustat, sigaction
				72, 73, 74, 79, 86, 87, 88, // sigsuspend, sigpending, sethostname, settimeofday, uselib, swapon, reboot
				103, 111, 115, 121, 128, 129, 131, 134, 135, // syslog, vhangup, swapoff, setdomainname, init_module to sysfs
				149, 169, 218, 249, 262, // _sysctl, nfsservctl, pivot_root, lookup_dcookie, clock_settime
				271, 272, 273, // pciconfig_iobase, pciconfig_read, pciconfig_write
				309, 310, 311, 313, 319, 320, 321, // add_key, request_key, keyctl, vserver, mbind, get_mempolicy, set_mempolicy
				337, 344, 347, 364, 367, // unshare, move_pages, kexec_load, perf_event_open, fanotify_init
				371, 375, 378, 379, 386, 388, // open_by_handle_at, setns, kcmp, finit_module, bpf, userfaultfd
				400, 401, 404, // migrate_pages, kexec_file_load, clock_settime64
			},
			clone: 120, clone3: 435, personality: 136, socket: 281, mknod: 14, mknodat: 324,
		},
	}
}
