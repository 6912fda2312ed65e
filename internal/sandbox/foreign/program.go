// Package foreign finds out whether programs for other processors than this machine's run in a sandbox, by running one:
// a kernel may run some itself (386 on amd64), and others through an interpreter that is registered with it
// (binfmt_misc), and only an attempt tells whether that works where steps run.
package foreign

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
)

// machine is what an ELF file says of the processor it is for, and a program for it: exit(0).
type machine struct {
	machine elf.Machine
	class   elf.Class
	data    elf.Data
	flags   uint32
	code    []byte
}

// machines are the processors by the name that platforms have. The code is each Linux's exit system call with 0:
// the number from the kernel's arch/*/include/uapi/asm/unistd.h.
func machines() map[string]machine {
	const (
		arm5  = 0x05000000 // EF_ARM_EABI_VER5
		mips  = 0x00001007 // EF_MIPS_NOREORDER, PIC, CPIC, ABI_O32
		m64   = 0x60000007 // EF_MIPS_ARCH_64, NOREORDER, PIC, CPIC
		ppc2  = 2          // ELFv2
		loong = 0x43       // double-float ABI, object file v1
	)
	le, be := elf.ELFDATA2LSB, elf.ELFDATA2MSB
	words := func(o binary.AppendByteOrder, w ...uint32) []byte {
		var out []byte
		for _, x := range w {
			out = o.AppendUint32(out, x)
		}
		return out
	}
	little, big := binary.LittleEndian, binary.BigEndian
	mips64 := []uint32{0x240213c2, 0x24040000, 0x0000000c} // li v0,5058; li a0,0; syscall
	mips32 := []uint32{0x24020fa1, 0x24040000, 0x0000000c} // li v0,4001; …
	return map[string]machine{
		"386":      {elf.EM_386, elf.ELFCLASS32, le, 0, []byte{0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80}},            // mov eax,1; xor ebx,ebx; int 0x80
		"amd64":    {elf.EM_X86_64, elf.ELFCLASS64, le, 0, []byte{0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05}},        // xor edi,edi; mov eax,60; syscall
		"arm":      {elf.EM_ARM, elf.ELFCLASS32, le, arm5, words(little, 0xe3a00000, 0xe3a07001, 0xef000000)},        // mov r0,#0; mov r7,#1; svc 0
		"arm64":    {elf.EM_AARCH64, elf.ELFCLASS64, le, 0, words(little, 0xd2800000, 0xd2800ba8, 0xd4000001)},       // mov x0,#0; mov x8,#93; svc 0
		"loong64":  {elf.EM_LOONGARCH, elf.ELFCLASS64, le, loong, words(little, 0x02800004, 0x0281740b, 0x002b0000)}, // li.w a0,0; li.w a7,93; syscall 0
		"mips":     {elf.EM_MIPS, elf.ELFCLASS32, be, mips, words(big, mips32...)},
		"mips64":   {elf.EM_MIPS, elf.ELFCLASS64, be, m64, words(big, mips64...)},
		"mips64le": {elf.EM_MIPS, elf.ELFCLASS64, le, m64, words(little, mips64...)},
		"mipsle":   {elf.EM_MIPS, elf.ELFCLASS32, le, mips, words(little, mips32...)},
		"ppc64":    {elf.EM_PPC64, elf.ELFCLASS64, be, ppc2, words(big, 0x38000001, 0x38600000, 0x44000002)}, // li r0,1; li r3,0; sc
		"ppc64le":  {elf.EM_PPC64, elf.ELFCLASS64, le, ppc2, words(little, 0x38000001, 0x38600000, 0x44000002)},
		"riscv64":  {elf.EM_RISCV, elf.ELFCLASS64, le, 0, words(little, 0x00000513, 0x05d00893, 0x00000073)}, // li a0,0; li a7,93; ecall
		"s390x":    {elf.EM_S390, elf.ELFCLASS64, be, 0, []byte{0xa7, 0x29, 0, 0, 0x0a, 1, 0, 0}},            // lghi %r2,0; svc 1
	}
}

// base is where the program lies in memory: above what any of these kernels keeps for itself.
const base = 0x400000

// Program is a program for the architecture ("arm64") that does nothing and succeeds: a static ELF file of some hundred
// bytes. It is nil for an architecture that is not known.
func Program(arch string) []byte {
	m, ok := machines()[arch]
	if !ok {
		return nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if m.data == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	var ident [elf.EI_NIDENT]byte
	copy(ident[:], elf.ELFMAG)
	ident[elf.EI_CLASS], ident[elf.EI_DATA], ident[elf.EI_VERSION] = byte(m.class), byte(m.data), byte(elf.EV_CURRENT)
	const page = 0x10000 // the largest of these machines
	var out bytes.Buffer
	write := func(v any) { _ = binary.Write(&out, order, v) } // a buffer takes everything
	if m.class == elf.ELFCLASS32 {
		const head = 52 + 32
		size := uint32(head + len(m.code)) //nolint:gosec // small
		write(elf.Header32{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(m.machine), Version: 1, Entry: base + head,
			Phoff: 52, Flags: m.flags, Ehsize: 52, Phentsize: 32, Phnum: 1})
		write(elf.Prog32{Type: uint32(elf.PT_LOAD), Vaddr: base, Paddr: base, Filesz: size, Memsz: size,
			Flags: uint32(elf.PF_R | elf.PF_X), Align: page})
	} else {
		const head = 64 + 56
		size := uint64(head + len(m.code)) //nolint:gosec // small
		write(elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(m.machine), Version: 1, Entry: base + head,
			Phoff: 64, Flags: m.flags, Ehsize: 64, Phentsize: 56, Phnum: 1})
		write(elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base,
			Filesz: size, Memsz: size, Align: page})
	}
	out.Write(m.code)
	return out.Bytes()
}
