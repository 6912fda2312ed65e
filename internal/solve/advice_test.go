package solve

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/plan"
	"hako/internal/sandbox"
)

func TestAdvice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		exit sandbox.ExitError
		op   plan.Run
		out  string
		want string // in the hint; empty for no hint
	}{
		{"nothing known", sandbox.ExitError{Code: 1}, plan.Run{}, "oh", ""},
		{"killed", sandbox.ExitError{Code: -1, Signal: 9}, plan.Run{}, "", "memory limit"},
		{"a child was killed", sandbox.ExitError{Code: 137}, plan.Run{}, "Killed", "memory limit"},
		{"a child crashed", sandbox.ExitError{Code: 139}, plan.Run{}, "", "crashed"},
		{"illegal instruction", sandbox.ExitError{Code: 132}, plan.Run{}, "", "processor lacks"},
		{"dash", sandbox.ExitError{Code: 127}, plan.Run{}, "/bin/sh: 1: make: not found", `"make" is not in the image`},
		{"busybox", sandbox.ExitError{Code: 127}, plan.Run{}, "/bin/sh: make: not found", `"make" is not in the image`},
		{"bash", sandbox.ExitError{Code: 127}, plan.Run{}, "bash: line 3: make: command not found", `"make" is not in the image`},
		{"exec form", sandbox.ExitError{Code: 127}, plan.Run{}, `unable to start container process: exec: "make": executable file not found in $PATH`, `"make" is not in the image`},
		{"exec form, another code", sandbox.ExitError{Code: 1}, plan.Run{}, `unable to start container process: exec: "make": executable file not found in $PATH`, `"make" is not in the image`},
		{"exec form, no loader", sandbox.ExitError{Code: 1}, plan.Run{}, `unable to start container process: exec: "/app": no such file or directory`, "dynamic loader"},
		{"exec form, not executable", sandbox.ExitError{Code: 1}, plan.Run{}, `unable to start container process: exec: "/app": permission denied`, `Make "/app" executable`},
		{"not found, by whom", sandbox.ExitError{Code: 127}, plan.Run{}, "", "A command was not found"},
		{"not executable", sandbox.ExitError{Code: 126}, plan.Run{}, "/bin/sh: 1: ./run.sh: Permission denied", `If "./run.sh" is a program, make it executable`},
		{"not executable, by whom", sandbox.ExitError{Code: 126}, plan.Run{}, "", "check its mode"},
		{"Windows shell script", sandbox.ExitError{Code: 127}, plan.Run{}, "run.sh: 2: make\r: not found", "Windows line ends"},
		{"Windows env", sandbox.ExitError{Code: 127}, plan.Run{}, `/usr/bin/env: 'bash\r': No such file or directory`, "Windows line ends"},
		{"Windows bash", sandbox.ExitError{Code: 126}, plan.Run{}, "bash: ./x: /bin/sh^M: bad interpreter: No such file or directory", "Windows line ends"},
		{"apt lists", sandbox.ExitError{Code: 100}, plan.Run{}, "Reading package lists...\nE: Unable to locate package gcc-99\n", `check the name "gcc-99"`},
		{"apt candidate", sandbox.ExitError{Code: 100}, plan.Run{}, "E: Package 'python' has no installation candidate", `check the name "python"`},
		{"apt 404", sandbox.ExitError{Code: 100}, plan.Run{}, "E: Failed to fetch http://deb/x.deb  404  Not Found [IP: 1.2.3.4 80]", "older than the archive"},
		{"apk", sandbox.ExitError{Code: 1}, plan.Run{}, "ERROR: unable to select packages:", "apk add --no-cache"},
		{"curl", sandbox.ExitError{Code: 6}, plan.Run{}, "curl: (6) Could not resolve host: x.example", "name could not be resolved"},
		{"apt names", sandbox.ExitError{Code: 100}, plan.Run{}, "Temporary failure resolving 'deb.debian.org'", "HTTP_PROXY"},
		{"npm", sandbox.ExitError{Code: 1}, plan.Run{}, "npm ERR! getaddrinfo EAI_AGAIN registry.npmjs.org", "HTTP_PROXY"},
		{"without network", sandbox.ExitError{Code: 6}, plan.Run{Network: plan.NetworkNone}, "curl: (6) Could not resolve host: x.example", "leave out --network=none"},
		{"certificate", sandbox.ExitError{Code: 60}, plan.Run{}, "curl: (60) SSL certificate problem: unable to get local issuer certificate", "ca-certificates"},
		{"connection", sandbox.ExitError{Code: 7}, plan.Run{}, "connect to 10.0.0.1 port 443 failed: Connection refused", "A connection failed"},
		{"disk", sandbox.ExitError{Code: 1}, plan.Run{}, "cp: error writing 'x': No space left on device", "--kaniko-dir"},
		{"architecture", sandbox.ExitError{Code: 126}, plan.Run{}, "/bin/sh: 1: /app: Exec format error", "linux/arm64: take the one for $TARGETARCH"},
		{"user", sandbox.ExitError{Code: 1}, plan.Run{User: "app"}, "mkdir: can't create directory '/x': Permission denied", "ran as USER app"},
		{"root", sandbox.ExitError{Code: 1}, plan.Run{User: "root:staff"}, "mkdir: can't create directory '/proc/x': Permission denied", ""},
	} {
		step := &plan.Step{Op: &tt.op, Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}}
		got := advise(&tt.exit, step, strings.Split(tt.out, "\n"))
		if !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%s: hint %q, want %q in it", tt.name, got, tt.want)
		}
	}
}

func TestTailKeepsWhatATerminalShows(t *testing.T) {
	t.Parallel()
	last := &tail{}
	for i := range 30 {
		last.add(fmt.Appendf(nil, "line %d", i))
	}
	for _, l := range []string{
		"", "\x1b[1;31mred\x1b[0m text\r", "10%\r50%\r100%", "a.sh: make\r: not found", "\x1b]0;title\aend", "\x1b[", "tab\t  ", "\x1b(Bx", "", "\r",
	} {
		last.add([]byte(l))
	}
	last.add([]byte(strings.Repeat("x", 5000)))
	got := last.text()
	want := []string{
		"line 21", "line 22", "line 23", "line 24", "line 25", "line 26", "line 27", "line 28", "line 29",
		"", "red text", "100%", "a.sh: make\r: not found", "end", "", "tab", "x", "", "", strings.Repeat("x", 1024),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	empty := &tail{}
	empty.add([]byte("\n"))
	if got := empty.text(); len(got) != 0 {
		t.Errorf("of an empty line %q is left", got)
	}
}
