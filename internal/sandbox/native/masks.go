package native

import "golang.org/x/sys/unix"

// masks is what of /proc a step does not see or cannot write, as with Docker (moby: oci/defaults.go).
type masks struct {
	files, dirs, readOnly []string
}

// findMasks looks which of the paths there are; they are the same in every /proc.
func findMasks() masks {
	var m masks
	for _, p := range []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
	} {
		var st unix.Stat_t
		if unix.Stat(p, &st) != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			m.dirs = append(m.dirs, p)
		} else {
			m.files = append(m.files, p)
		}
	}
	for _, p := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"} {
		if unix.Access(p, unix.F_OK) == nil {
			m.readOnly = append(m.readOnly, p)
		}
	}
	return m
}

// add makes p mount /proc, in the new PID namespace, and mask it.
func (m *masks) add(p *program) {
	const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	mount := func(what, source, target, fstype string, flags uintptr) {
		p.add(what, unix.SYS_MOUNT, p.text(source), p.text(target), p.text(fstype), flags, 0)
	}
	mount("mount /proc", "proc", "/proc", "proc", inert)
	for _, f := range m.files {
		mount("mask "+f, "/dev/null", f, "", unix.MS_BIND)
	}
	for _, d := range m.dirs {
		mount("mask "+d, "tmpfs", d, "tmpfs", unix.MS_RDONLY|inert)
	}
	for _, r := range m.readOnly {
		mount("protect "+r, r, r, "", unix.MS_BIND|unix.MS_REC)
		mount("protect "+r, "", r, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|inert)
	}
}
