package sentry

const machine = 62 // EM_X86_64

// pauseCode calls pause(2) for ever.
func pauseCode() []byte {
	return []byte{
		0xb8, 34, 0, 0, 0, // mov $SYS_pause, %eax
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start
	}
}

// exitCode calls exit(0).
func exitCode() []byte {
	return []byte{
		0xb8, 60, 0, 0, 0, // mov $SYS_exit, %eax
		0x31, 0xff, // xor %edi, %edi
		0x0f, 0x05, // syscall
	}
}
