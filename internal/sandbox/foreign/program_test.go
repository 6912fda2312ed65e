package foreign_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"hako/internal/sandbox/foreign"
)

// qemuNames are what qemu calls the architectures, where it has another name.
func qemuName(arch string) string {
	if n, ok := map[string]string{"386": "i386", "amd64": "x86_64", "arm64": "aarch64", "loong64": "loongarch64", "mipsle": "mipsel", "mips64le": "mips64el"}[arch]; ok {
		return n
	}
	return arch
}

// TestPrograms runs every program: on this machine, or by qemu where it is installed.
func TestPrograms(t *testing.T) {
	t.Parallel()
	for _, arch := range []string{
		"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le", "riscv64", "s390x",
	} {
		t.Run(arch, func(t *testing.T) {
			t.Parallel()
			program := foreign.Program(arch)
			if _, err := elf.NewFile(bytes.NewReader(program)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), arch)
			if err := os.WriteFile(file, program, 0o755); err != nil {
				t.Fatal(err)
			}
			args := []string{file}
			if arch != runtime.GOARCH {
				qemu, err := exec.LookPath("qemu-" + qemuName(arch) + "-static")
				if err != nil {
					t.Skip("needs qemu-user-static")
				}
				args = []string{qemu, file}
			}
			if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestUnknownArchitecture(t *testing.T) {
	t.Parallel()
	if foreign.Program("z80") != nil {
		t.Error("there is a program for the Z80")
	}
}
