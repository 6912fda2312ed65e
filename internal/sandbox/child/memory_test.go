package child

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestWeightCounts runs in a process of its own, which keeps what it maps.
func TestWeightCounts(t *testing.T) {
	t.Parallel()
	const variable, size = "HAKO_TEST_WEIGHT", 100 << 20
	if os.Getenv(variable) == "" {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		c.Env = append(os.Environ(), variable+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	before := mapped(t)
	if err := weigh(size); err != nil {
		t.Fatal(err)
	}
	const want = size / 1024 * 9 / 10 // the kernel's counters are late
	if got := mapped(t) - before; got < want {
		t.Errorf("%d KiB more are mapped, want %d", got, want)
	}
}

// mapped is RssShmem of this process, in KiB.
func mapped(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "RssShmem:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no RssShmem")
	return 0
}

func TestWeightGrowsWithTheLimit(t *testing.T) {
	t.Parallel()
	const mebibyte = 1 << 20
	for limit, want := range map[int64]int64{0: 0, 128 * mebibyte: 72 * mebibyte, 1024 * mebibyte: 128 * mebibyte, 1 << 40: 256 * mebibyte} {
		if got := weight(limit); got != want {
			t.Errorf("%d: %d, want %d", limit, got, want)
		}
	}
}

func BenchmarkWeight(b *testing.B) {
	for b.Loop() {
		if err := weigh(weight(2 << 30)); err != nil {
			b.Fatal(err)
		}
	}
}
