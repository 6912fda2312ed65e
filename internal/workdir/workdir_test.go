package workdir_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hako/internal/workdir"
)

func open(t *testing.T, opts workdir.Options) *workdir.Dir {
	t.Helper()
	d, err := workdir.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// checkExec writes to f and maps it executable.
func checkExec(t *testing.T, f *os.File, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("code"); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		t.Fatalf("map %s executable: %v", f.Name(), err)
	}
	_ = unix.Munmap(m)
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%s is inherited by children", f.Name())
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func TestDirectoryIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	place := filepath.Join(parent, "a", "b")
	d := open(t, workdir.Options{Explicit: place})
	f, err := d.ExecFile("image")
	if d.Report().Mode == workdir.Disk && (filepath.Dir(d.Path()) != place || !strings.HasPrefix(f.Name(), place)) {
		t.Errorf("path %s, file %s", d.Path(), f.Name())
	}
	checkExec(t, f, err)
	data, err := d.File("blob")
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if got := names(t, d.Path()); got != nil {
		t.Errorf("files have names: %v", got)
	}
	deep := filepath.Join(d.Path(), "x", "y")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(deep), 0o500); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, parent); got != nil {
		t.Errorf("left: %v", got)
	}
	if _, err := data.WriteString("still open"); err != nil {
		t.Error(err)
	}
}

func TestDirectoriesOfOthersStay(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	place := filepath.Join(parent, "a")
	one, two := open(t, workdir.Options{Explicit: place}), open(t, workdir.Options{Explicit: place})
	if one.Path() == two.Path() {
		t.Fatal("two builds share", one.Path())
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(two.Path()); err != nil {
		t.Error(err)
	}
	three := open(t, workdir.Options{Explicit: place})
	if _, err := os.Stat(two.Path()); err != nil {
		t.Errorf("swept away while in use: %v", err)
	}
	_ = three.Close()
	_ = two.Close()
}

func TestDeadBuildsAreSwept(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	dead := filepath.Join(place, "hako-DEAD")
	if err := os.MkdirAll(filepath.Join(dead, "blobs"), 0o700); err != nil {
		t.Fatal(err)
	}
	keep := []string{"hako-note", "other.lock", "hako-link.lock"}
	for _, name := range []string{dead + ".lock", filepath.Join(place, keep[0]), filepath.Join(place, keep[1])} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target := filepath.Join(t.TempDir(), "target")
	if err := os.WriteFile(target, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, filepath.Join(place, keep[2])); err != nil {
		t.Fatal(err)
	}
	d := open(t, workdir.Options{Candidates: []string{place}})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"hako-link.lock", "hako-note", "other.lock"}
	if diff := cmp.Diff(want, names(t, place)); diff != "" {
		t.Error(diff)
	}
}

func TestKilledBuildIsSweptByTheNext(t *testing.T) {
	t.Parallel()
	if place := os.Getenv("WORKDIR_TEST_PLACE"); place != "" {
		d, err := workdir.Open(workdir.Options{Explicit: place})
		if err != nil {
			t.Fatal(err)
		}
		_ = os.WriteFile(filepath.Join(d.Path(), "state"), nil, 0o600)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	place := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "WORKDIR_TEST_PLACE="+place)
	if err := cmd.Run(); err == nil {
		t.Fatal("the build was not killed")
	}
	if len(names(t, place)) != 2 {
		t.Fatalf("a killed build left %v", names(t, place))
	}
	d := open(t, workdir.Options{Explicit: place})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, place); got != nil {
		t.Errorf("left: %v", got)
	}
}

func TestMemoryWhereNothingIsWritable(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	d := open(t, workdir.Options{Candidates: []string{missing, "/proc", "", missing}})
	if d.Path() != "" {
		t.Errorf("path %q", d.Path())
	}
	f, err := d.ExecFile(strings.Repeat("long name", 100))
	checkExec(t, f, err)
	f, err = d.File("x")
	checkExec(t, f, err)
	r := d.Report()
	if r.Mode != workdir.Memory || !r.InMemory || r.Data != "" || r.Exec != "" || len(r.Tried) != 2 {
		t.Errorf("%+v", r)
	}
	if !errors.Is(r.Tried[0].Err, fs.ErrNotExist) || r.Tried[1].Err == nil {
		t.Errorf("reasons: %v; %v", r.Tried[0].Err, r.Tried[1].Err)
	}
}

func TestExplicitDirectoryMustWork(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below"), "/proc/hako"} {
		d, err := workdir.Open(workdir.Options{Explicit: path, Candidates: []string{t.TempDir()}})
		if err == nil {
			_ = d.Close()
			t.Errorf("%s was taken", path)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%v does not name %s", err, path)
		}
	}
}

// shm is a tmpfs on every Linux system, in containers a noexec one.
const shm = "/dev/shm"

func TestDiskIsPreferredToMemory(t *testing.T) {
	t.Parallel()
	var st unix.Statfs_t
	disk := t.TempDir()
	if err := unix.Statfs(disk, &st); err != nil || st.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory on a disk")
	}
	if err := unix.Access(shm, unix.W_OK); err != nil {
		t.Skip("needs a writable /dev/shm")
	}
	d := open(t, workdir.Options{Candidates: []string{shm, disk}})
	if r := d.Report(); r.Data != disk || r.InMemory || !r.Tried[0].Tmpfs || r.Tried[1].Tmpfs {
		t.Errorf("%+v", r)
	}
}

func TestNoexecPlaceHoldsDataOnly(t *testing.T) {
	t.Parallel()
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Flags&unix.ST_NOEXEC == 0 || unix.Access(shm, unix.W_OK) != nil {
		t.Skip("needs a writable noexec /dev/shm, as containers have it")
	}
	d := open(t, workdir.Options{Candidates: []string{shm}})
	r := d.Report()
	if r.Mode != workdir.DiskNoExec || r.Data != shm || r.Exec != "" || r.Tried[0].ExecErr == nil {
		t.Errorf("%+v", r)
	}
	f, err := d.ExecFile("image")
	checkExec(t, f, err)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestStubbornLeftoversAreKeptInMind cannot delete what a dead build has left before somebody helps.
func TestStubbornLeftoversAreKeptInMind(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	dead := filepath.Join(place, "hako-DEAD")
	if err := os.MkdirAll(filepath.Join(dead, "steps"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dead+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := stubborn(filepath.Join(dead, "steps", "file"))
	if err != nil {
		t.Skip("needs files that cannot be deleted (chattr +i): ", err)
	}
	var asked []string
	for i, want := range [][]string{{"hako-DEAD", "hako-DEAD.lock"}, nil} {
		d := open(t, workdir.Options{Candidates: []string{place}, Stubborn: func(path string) error {
			asked = append(asked, path)
			if i == 0 {
				return errors.New("not today")
			}
			return release()
		}})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, names(t, place)); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff([]string{dead, dead}, asked); diff != "" {
		t.Error(diff)
	}
}

// stubborn makes a file that cannot be deleted until the result is called.
func stubborn(path string) (release func() error, err error) {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const immutable = 0x10 // FS_IMMUTABLE_FL, linux/fs.h
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, immutable); err != nil {
		return nil, err
	}
	return func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0), f.Close())
	}, nil
}
