package sentry

// writeCode calls write(1, p, 1), where p is the code itself.
func writeCode() []byte {
	return []byte{
		0xb8, 1, 0, 0, 0, // mov $SYS_write, %eax
		0xbf, 1, 0, 0, 0, // mov $1, %edi
		0x48, 0x8d, 0x35, 0xef, 0xff, 0xff, 0xff, // lea -17(%rip), %rsi
		0xba, 1, 0, 0, 0, // mov $1, %edx
		0x0f, 0x05, // syscall
	}
}
