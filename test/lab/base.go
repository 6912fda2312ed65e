package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const (
	debianSuite = "bookworm"
	// maxBaseAge is how long a cached Debian base is used: its package lists are empty, but security fixes move on.
	maxBaseAge = 7 * 24 * time.Hour
)

// DebianTar returns the path of an uncompressed tar of a minimal Debian with ca-certificates,
// made by mmdebstrap and kept in the cache directory. It uses the mirror and apt settings of this machine.
func DebianTar(ctx context.Context) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, "debian-"+debianSuite+".tar")
	if st, err := os.Stat(file); err == nil && time.Since(st.ModTime()).Abs() < maxBaseAge {
		return file, nil
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", fmt.Errorf("make a Debian base: %w (apt-get install mmdebstrap)", err)
	}
	part := fmt.Sprintf("%s.%d.tar", file, os.Getpid())
	defer os.Remove(part) //nolint:errcheck // gone already if all went well
	args := []string{"mmdebstrap", "--quiet", "--variant=minbase", "--include=ca-certificates"}
	for _, opt := range hostAptOptions(ctx) {
		args = append(args, "--aptopt="+opt)
	}
	args = append(args, debianSuite, part)
	args = append(args, hostMirrors()...)
	if _, err := Must(ctx, args...); err != nil {
		return "", fmt.Errorf("make a Debian base: %w", err)
	}
	return file, os.Rename(part, file)
}

// hostAptOptions are this machine's apt settings that decide whether and how an archive is reached.
func hostAptOptions(ctx context.Context) []string {
	dump, err := Must(ctx, "apt-config", "dump", "Acquire")
	if err != nil {
		return nil // no apt here: mmdebstrap will say so
	}
	want := regexp.MustCompile(`(?i)^Acquire::([a-z]+::Proxy|https::CAInfo|Check-Valid-Until|Check-Date|Retries)[ :]`)
	var opts []string
	for _, line := range strings.Split(dump, "\n") {
		if want.MatchString(line) && !strings.Contains(line, `""`) {
			opts = append(opts, line)
		}
	}
	return opts
}

// hostMirrors are the source lines to take packages from, if this machine has its own for the suite; none means Debian's own.
func hostMirrors() []string {
	files, _ := filepath.Glob("/etc/apt/sources.list.d/*.sources") // the pattern is well formed
	uri := regexp.MustCompile(`(?m)^URIs:\s*(\S+)`)
	suites := regexp.MustCompile(`(?m)^Suites:\s*(.*)$`)
	var lines []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, stanza := range strings.Split(string(text), "\n\n") {
			u, s := uri.FindStringSubmatch(stanza), suites.FindStringSubmatch(stanza)
			if u == nil || s == nil || !strings.Contains(s[1], debianSuite) {
				continue
			}
			for _, suite := range strings.Fields(s[1]) {
				lines = append(lines, fmt.Sprintf("deb %s %s main", u[1], suite))
			}
		}
	}
	old := regexp.MustCompile(`^deb (\[.*\] )?\S+ ` + debianSuite + `\S* .*main`)
	text, _ := os.ReadFile("/etc/apt/sources.list") // most machines have only one of the two forms
	for _, line := range strings.Split(string(text), "\n") {
		if old.MatchString(line) {
			lines = append(lines, line)
		}
	}
	sort.Strings(lines)
	return lines
}

// BusyboxTar writes a small base to w: a static busybox with a link for each applet, users and groups,
// and a few files that tests remove, change or look for.
func BusyboxTar(ctx context.Context, w io.Writer) error {
	bin, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("make a busybox base: %w (apt-get install busybox-static)", err)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return fmt.Errorf("make a busybox base: %w", err)
	}
	list, err := Must(ctx, bin, "--list")
	if err != nil {
		return fmt.Errorf("make a busybox base: %w", err)
	}
	tw := tar.NewWriter(w)
	for _, h := range busyboxEntries(strings.Fields(list)) {
		body := []byte(h.content)
		if h.Name == "bin/busybox" {
			body = data
		}
		h.Size = int64(len(body))
		h.ModTime = time.Unix(1_700_000_000, 0)
		if err := tw.WriteHeader(&h.Header); err != nil {
			return fmt.Errorf("make a busybox base: %w", err)
		}
		if _, err := tw.Write(body); err != nil {
			return fmt.Errorf("make a busybox base: %w", err)
		}
	}
	return tw.Close()
}

// entry is a tar header with its bytes.
type entry struct {
	tar.Header
	content string
}

func busyboxEntries(applets []string) []entry {
	dir := func(name string, mode int64) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}}
	}
	file := func(name string, mode int64, content string) entry {
		return entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content: content}
	}
	moved := file("bin/moved", 0o755, "#!/bin/sh\necho moved\n")
	capability := file("bin/capable", 0o755, "#!/bin/sh\necho capable\n")
	// cap_net_raw+ep: revision 2, effective, permitted bit 13 (linux/capability.h)
	capability.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	moved.PAXRecords = capability.PAXRecords
	shadow := file("etc/shadow", 0o640, "root:*:19000:0:99999:7:::\n")
	shadow.Gid = 42
	entries := []entry{
		dir("bin/", 0o755), dir("dev/", 0o755), dir("etc/", 0o755), dir("home/", 0o755), dir("proc/", 0o555),
		dir("root/", 0o700), dir("srv/", 0o755), dir("sys/", 0o555), dir("tmp/", 0o1777), dir("usr/", 0o755), dir("var/", 0o755),
		dir("var/keep/", 0o750), file("var/keep/one", 0o600, "one\n"), file("var/keep/two", 0o604, "two\n"),
		file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
		file("etc/group", 0o644, "root:x:0:\nshadow:x:42:\nnogroup:x:65534:\n"), shadow,
		file("etc/removed", 0o644, "to be removed\n"), moved, capability,
		file("bin/busybox", 0o755, ""),
	}
	for _, a := range applets {
		if a == "busybox" {
			continue
		}
		entries = append(entries, entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}})
	}
	return entries
}

// Push makes an image of layers, the tars that open yields, bottom first, and pushes it to ref over plain HTTP.
func Push(ctx context.Context, ref string, open ...func() (io.ReadCloser, error)) error {
	dst, err := name.ParseReference(ref, name.Insecure)
	if err != nil {
		return fmt.Errorf("push a base: %w", err)
	}
	var layers []v1.Layer
	for _, o := range open {
		l, err := tarball.LayerFromOpener(o)
		if err != nil {
			return fmt.Errorf("push %s: %w", ref, err)
		}
		layers = append(layers, l)
	}
	img, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	img, err = mutate.ConfigFile(img, baseConfig(img))
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	if err := remote.Write(dst, img, remote.WithContext(ctx), remote.WithAuth(authn.Anonymous)); err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

func baseConfig(img v1.Image) *v1.ConfigFile {
	cf, err := img.ConfigFile()
	if err != nil {
		cf = &v1.ConfigFile{}
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "amd64"
	cf.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cf.Config.Cmd = []string{"/bin/sh"}
	return cf
}

// PushBusybox pushes the busybox base to ref.
func PushBusybox(ctx context.Context, ref string) error {
	var buf bytes.Buffer
	if err := BusyboxTar(ctx, &buf); err != nil {
		return err
	}
	return Push(ctx, ref, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
}

// PushDebian pushes the Debian base to ref.
func PushDebian(ctx context.Context, ref string) error {
	file, err := DebianTar(ctx)
	if err != nil {
		return err
	}
	return Push(ctx, ref, func() (io.ReadCloser, error) { return os.Open(file) })
}
