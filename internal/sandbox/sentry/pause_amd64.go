package sentry

const pauseMachine = 62 // EM_X86_64

// pauseCode calls pause(2) for ever.
func pauseCode() []byte {
	return []byte{
		0xb8, 34, 0, 0, 0, // mov $SYS_pause, %eax
		0x0f, 0x05, // syscall
		0xeb, 0xf7, // jmp to the start
	}
}
