package sandboxtest

import (
	"testing"
	"time"

	"hako/internal/rootfs"
)

// until runs args on stack with no time of the result later than sec.
func (b *bed) until(t *testing.T, sec int64, stack *rootfs.Stack, args ...string) *result {
	t.Helper()
	step, latest := b.command(args...), time.Unix(sec, 0)
	step.Latest = &latest
	r := b.run(t, stack, step)
	if r.Exit != nil {
		t.Fatalf("%q: %v\n%s%s", args, r.Exit, r.Out, r.Err)
	}
	return r
}

// timed is f with a time, in seconds after baseTime.
func timed(f file, after int64) file {
	f.ModTime = time.Unix(baseTime+after, 0)
	return f
}

func timeCases() cases {
	return cases{
		"no time after the latest": func(t *testing.T, b *bed) {
			r := b.until(t, baseTime+1000, b.base, fields(
				"write /data/new 1 ; mkdir /data/dir ; symlink x /data/dir/link ; ln /data/new /data/other ; mkfifo /data/pipe 0644 ; "+
					"append /data/a x ; touch /data/a 1600000500 ; chmod /data/b 0640 ; touch /data/b 1900000000 ; rm /data/sub/c")...)
			times := map[string]int64{}
			for _, f := range r.Changes {
				times[f.Path] = f.ModTime.Unix() - baseTime
			}
			for path, want := range map[string]int64{
				"data": 1000, "data/a": 500, "data/b": 1000, "data/dir": 1000, "data/dir/link": 1000, "data/new": 1000, "data/other": 1000,
				"data/pipe": 1000, "data/sub": 1000,
			} {
				if got, ok := times[path]; !ok || got != want {
					t.Errorf("%s has time %d (there: %v), want %d", path, got, ok, want)
				}
			}
		},
		"later steps see the latest time": func(t *testing.T, b *bed) {
			r := b.until(t, baseTime+1000, b.base, fields("write /data/new 1 ; symlink x /data/link ; mkdir /data/dir ; chmod /data/b 0640")...)
			look := fields("times /data /data/new /data/link /data/dir /data/b /data/a")
			kept := b.okOn(t, r.Stack, look...)
			wantOut(t, kept, "/data 1600001000\n/data/new 1600001000\n/data/link 1600001000\n/data/dir 1600001000\n/data/b 1600000000\n/data/a 1600000000\n")
			// The same layer under another chain ID: the engine has to mount it from its blob.
			mounted := b.okOn(t, b.stack(t, base(b.applet), list{dir("other", 0o755)}, r.Changes), look...)
			wantOut(t, mounted, kept.Out)
		},
		"what is later below is no change": func(t *testing.T, b *bed) {
			r := b.until(t, baseTime-1000, b.base, fields("chmod /data/a 0600 ; chmod /data/a 0644 ; write /data/sub/new x")...)
			r.want(t, with([]file{timed(dirAt("data"), -1000), timed(dirAt("data/sub"), -1000), timed(written("data/sub/new", "x"), -1000)})...)
			wantOut(t, b.okOn(t, r.Stack, "times", "/data/a", "/data/sub", "/data/sub/c", "/data/sub/new"),
				"/data/a 1600000000\n/data/sub 1599999000\n/data/sub/c 1600000000\n/data/sub/new 1599999000\n")
		},
		"a chain with a latest time": func(t *testing.T, b *bed) {
			s := b.base
			for range 3 {
				r := b.until(t, baseTime+1000, s, "append", "/data/a", "x", ";", "times", "/data")
				s = r.Stack
				if f := r.Changes[len(r.Changes)-1]; f.Path != "data/a" && f.ModTime.Unix() != baseTime+1000 {
					t.Errorf("%s at %v", f.Path, f.ModTime)
				}
			}
			wantOut(t, b.okOn(t, s, "cat", "/data/a", ";", "times", "/data/a"), "a\nxxx/data/a 1600001000\n")
		},
	}
}
