package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test binary play the box: scripts find every tool as a link to it.
func TestMain(m *testing.M) {
	if applets()[filepath.Base(os.Args[0])] != nil {
		main()
		return
	}
	os.Exit(m.Run())
}

// shell runs script with only box's tools in PATH, in a fresh directory, and returns what it printed.
func shell(t *testing.T, script string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	for name := range applets() {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(filepath.Join(bin, "sh"), "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + bin, "TMPDIR=" + cmd.Dir}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("script: %v\n%s", err, out)
	}
	return string(out)
}

func TestScripts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, script, want string }{
		{"quoting and parameters", `sh -c 'echo "$0" "$1" $#' zero "a b" c`, "zero a b 2\n"},
		{"options stop at the first error", `sh -ec 'false; echo never' || echo "rc $?"`, "rc 1\n"},
		{"exit code of a signal", `sh -c 'kill -9 $$' || echo "rc $?"`, "rc 137\n"},
		{"unknown command", `nosuch 2>/dev/null || echo "rc $?"`, "rc 127\n"},
		{"pipes, functions, arithmetic", `f() { local x=$1; echo $((x * 2)); }; seq 3 | while read n; do f "$n"; done`, "2\n4\n6\n"},
		{"heredoc", "cat <<X\n$((1+1))\nX", "2\n"},
		{"script file with a shebang-less body", `echo 'echo hi "$1"' > s; chmod +x s; ./s you`, "hi you\n"},
		{"umask", `umask 027; : > f; mkdir d; stat -c %a f d`, "640\n750\n"},
		{"test and [", `test 1 -lt 2 && [ -d . ] && echo yes`, "yes\n"},
		{"printf as a program", `env printf '%s-%03d\n' a 7`, "a-007\n"},
		{"chmod", `touch f; chmod u=rw,g=r,o= f; stat -c %a f; chmod a+X,u+x f; stat -c %a f; chmod +s,o+t f; stat -c %A f; chmod 4711 f; stat -c '%a %A' f`,
			"640\n740\n-rwsr-S--T\n4711 -rws--x--x\n"},
		{"touch", `touch -d '2020-02-02 03:04:05' a; touch -d @7.5 b; touch -t 202101020304.05 c; touch -r a d; stat -c '%n %Y' a b c d`,
			"a 1580612645\nb 7\nc 1609556645\nd 1580612645\n"},
		{"links", `echo x > a; ln a b; ln -s a c; ln -sf b c; readlink c; stat -c %h a; cat c`, "b\n2\nx\n"},
		{"cp keeps links and times with -a", `mkdir s; echo x > s/a; ln s/a s/b; ln -s a s/l; touch -d @9 s/a; cp -a s t; stat -c '%h %Y' t/a; readlink t/l`, "2 9\na\n"},
		{"cp follows links without -r", `echo x > a; ln -s a l; cp l c; stat -c %F c`, "regular file\n"},
		{"mv, rm, rmdir", `mkdir -p a/b; touch x; mv x a/b; rm a/b/x; rmdir -p a/b; ls; rm -f nosuch; rm nosuch 2>/dev/null || echo missing`, "missing\n"},
		{"mkdir -m", `mkdir -m 1777 d; stat -c %a d`, "1777\n"},
		{"find", `mkdir -p d/e; touch d/a.c d/e/b.c d/e/x; find d -name '*.c' | sort; find d -type d -empty; find d -type f ! -name '*.c' -delete; find d \( -name a.c -o -name x \) -print`,
			"d/a.c\nd/e/b.c\nd/a.c\n"},
		{"find -exec", `touch a b; find . -type f -exec echo one {} \; | sort; find . -type f -exec echo all {} + | wc -l`, "one ./a\none ./b\n1\n"},
		{"find -prune", `mkdir -p d/skip d/keep; touch d/skip/f d/keep/f; find d -name skip -prune -o -type f -print`, "d/keep/f\n"},
		{"grep", `printf 'foo\nbar\nBaz\n' > f; grep -n 'ba\|fo' f; grep -iE '^b(a|x)' f; grep -c o f; grep -v a f; grep -q zzz f || echo none`,
			"1:foo\n2:bar\nbar\nBaz\n1\nfoo\nnone\n"},
		{"grep's braces are literal in basic patterns", `echo 'a{2}' | grep -c 'a{2}'; echo aa | grep -cE '^a{2}$'`, "1\n1\n"},
		{"sed", `printf 'a 1\nb 2\nc 3\n' > f; sed -e 's/\(.\) \(.\)/\2-\1/' f; sed -n '/b/p' f; sed '2,3d' f; sed -i 's|c|&&|g' f; tail -n1 f; sed '$a end' f | tail -n 1; sed '1!d' f`,
			"1-a\n2-b\n3-c\nb 2\na 1\ncc 3\nend\na 1\n"},
		{"sort, uniq, cut, tr", `printf 'b:2\na:10\nb:2\n' | sort | uniq -c | tr -s ' '; printf 'b:2\na:10\n' | sort -t: -k2 -n | cut -d: -f1; echo abc | tr a-b X-Y; echo a1b | tr -d 0-9`,
			" 1 a:10\n 2 b:2\nb\na\nXYc\nab\n"},
		{"head, tail, wc", `seq 20 > f; head -3 f | tail -n 1; tail -n +19 f; head -c 3 f | wc -c; wc -l < f`, "3\n19\n20\n3\n20\n"},
		{"tar", `mkdir s; echo x > s/a; ln s/a s/b; ln -s a s/l; mkfifo s/p; chmod 640 s/a; touch -d @5 s/a; tar -czf t.tgz -C s .; mkdir o; tar xzf t.tgz -C o; stat -c '%n %a %h %Y' o/a; stat -c %F o/p; tar tf t.tgz | sort`,
			"o/a 640 2 5\nfifo\n./\na\nb\nl\np\n"},
		{"gzip", `echo x > f; gzip f; ls; gunzip f.gz; cat f; gzip -c f | zcat`, "f.gz\nx\nx\n"},
		{"sums", `echo x > f; sha256sum f > s; sha256sum -c s; echo y > f; sha256sum -c s 2>/dev/null || echo bad`, "f: OK\nbad\n"},
		{"xargs", `echo a b c | xargs -n2 echo; printf 'x y\nz\n' | xargs -I{} echo '<{}>'`, "a b\nc\n<x y>\n<z>\n"},
		{"env", `env -i A=1 B=2 env; env -u TMPDIR -u PATH A=3 "$(which env)" | grep -v PWD`, "A=1\nB=2\nA=3\n"},
		{"date", `date -u -d @86400 '+%F %T %a'`, "1970-01-02 00:00:00 Fri\n"},
		{"dd and truncate", `echo abcdef | dd bs=1 skip=2 count=3; echo; truncate -s 1k f; stat -c %s f`, "cde\n1024\n"},
		{"dirname and basename", `dirname /a/b/ c /; basename /a/b.c .c`, "/a\n.\n/\nb\n"},
		{"expr", `expr 7 - 2; expr abc : 'a\(.\)'; expr length xyz`, "5\nb\n3\n"},
		{"install", `echo x > f; install -D -m 640 f d/e/g; stat -c %a d/e/g; install -d -m 700 p/q; stat -c %a p/q`, "640\n700\n"},
		{"tee, rev, base64, xxd", `echo abc | tee f | rev; base64 < f; base64 < f | base64 -d; printf 'a\n' | xxd -p`, "cba\nYWJjCg==\nabc\n610a\n"},
		{"timeout", `timeout 0.05 sleep 5 || echo "rc $?"; timeout 5 true && echo ok`, "rc 124\nok\n"},
		{"an unknown option is an error", `ls --nosuch 2>&1 || echo "rc $?"`, "ls: unknown option --nosuch\nrc 1\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, shell(t, test.script)); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFileCapabilities(t *testing.T) {
	t.Parallel()
	got, err := capValue("cap_setuid,cap_net_raw+ep")
	if err != nil {
		t.Fatal(err)
	}
	// VFS_CAP_REVISION_2 with the effective flag; permitted is bits 7 and 13; all little endian.
	want := []byte{1, 0, 0, 2, 0x80, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("capability (-want +got):\n%s", diff)
	}
	if _, err := capValue("cap_nosuch+ep"); err == nil {
		t.Error("an unknown capability is taken")
	}
}

func TestUnknownTool(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	code := run(&world{in: strings.NewReader(""), out: &log, err: &log}, []string{"nosuch"})
	if code != 127 || !strings.HasPrefix(log.String(), "nosuch: no such tool; there are: [ base64 ") {
		t.Errorf("code %d and %q, want 127 and the list of tools", code, log.String())
	}
}

func TestTarStaysInside(t *testing.T) {
	t.Parallel()
	got := shell(t, `printf '../evil\0' > /dev/null; mkdir d; cd d; echo x > ../f; tar -cf ../t.tar ../f; mkdir in; tar -xf ../t.tar -C in 2>&1 || echo refused`)
	if diff := cmp.Diff("tar: ../f leads out of the directory\nrefused\n", got); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}
