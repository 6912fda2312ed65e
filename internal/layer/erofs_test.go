package layer_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/erofs"

	"hako/internal/layer"
	"hako/internal/tree"
)

// onDisk is what a reader of an EROFS image sees at one path.
type onDisk struct {
	Mode     uint32
	UID, GID uint32
	Links    uint32
	MTime    int64
	Nsec     uint32
	Data     string // content, link target, or "major:minor"
	Same     string // the first name of the inode, in tree order
}

// readErofs reads a whole image with gVisor's reader, as its sentry would.
func readErofs(f *os.File) (map[string]onDisk, error) {
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	im, err := erofs.OpenImage(os.NewFile(uintptr(fd), "image"))
	if err != nil {
		return nil, err
	}
	defer im.Close()
	r := &erofsReader{im: im, file: f, out: map[string]onDisk{}, first: map[uint64]string{}}
	return r.out, r.walk(im.RootNid(), im.RootNid(), ".")
}

type erofsReader struct {
	im    *erofs.Image
	file  *os.File
	out   map[string]onDisk
	first map[uint64]string
}

func (r *erofsReader) walk(nid, parent uint64, path string) error {
	ino, err := r.im.Inode(nid)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	d := onDisk{
		Mode: uint32(ino.Mode()), UID: ino.UID(), GID: ino.GID(), Links: ino.Nlink(),
		MTime: int64(ino.Mtime()), Nsec: ino.MtimeNsec(),
	}
	if d.Same = r.first[nid]; d.Same == "" {
		d.Same, r.first[nid] = path, path
	}
	switch {
	case ino.IsDir():
		if err := r.dir(&ino, nid, parent, path); err != nil {
			return err
		}
	case ino.IsRegular(), ino.IsSymlink():
		if d.Data, err = data(&ino); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	case ino.IsCharDev(), ino.IsBlockDev():
		d.Data, err = r.device(nid)
		if err != nil {
			return err
		}
	}
	r.out[path] = d
	return nil
}

func data(ino *erofs.Inode) (string, error) {
	ranges, err := ino.DataRanges()
	if err != nil {
		return "", err
	}
	if ino.IsRegular() {
		if _, err := ino.DataOffset(); err != nil {
			return "", err
		}
	}
	return string(ranges[0].Bytes) + string(ranges[1].Bytes), nil
}

// device reads the device number, which the package does not show.
func (r *erofsReader) device(nid uint64) (string, error) {
	var b [4]byte
	sb := r.im.SuperBlock()
	if _, err := r.file.ReadAt(b[:], int64(sb.NidToOffset(nid))+16); err != nil {
		return "", err
	}
	dev := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev)), nil
}

func (r *erofsReader) dir(ino *erofs.Inode, nid, parent uint64, path string) error {
	seen := ""
	return ino.IterDirents(func(name string, typ uint8, child uint64) error {
		if name <= seen {
			return fmt.Errorf("%s: %q comes after %q", path, name, seen)
		}
		seen = name
		if got, err := ino.Lookup(name); err != nil || got != child {
			return fmt.Errorf("%s: look up %q: %d, %w", path, name, got, err)
		}
		switch name {
		case ".":
			return expect(path, child, nid)
		case "..":
			return expect(path+"/..", child, parent)
		}
		if err := r.walk(child, nid, joinPath(path, name)); err != nil {
			return err
		}
		return r.checkType(joinPath(path, name), typ)
	})
}

func (r *erofsReader) checkType(path string, typ uint8) error {
	want := map[uint32]uint8{
		unix.S_IFREG: 1, unix.S_IFDIR: 2, unix.S_IFCHR: 3, unix.S_IFBLK: 4, unix.S_IFIFO: 5, unix.S_IFLNK: 7,
	}[r.out[path].Mode&unix.S_IFMT]
	if typ != want {
		return fmt.Errorf("%s: type in directory is %d, want %d", path, typ, want)
	}
	return nil
}

func expect(path string, got, want uint64) error {
	if got != want {
		return fmt.Errorf("%s: inode %d, want %d", path, got, want)
	}
	return nil
}

func joinPath(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// wantOnDisk says what an image has to show, from the layer's index.
func wantOnDisk(t testing.TB, im *layer.Image) map[string]onDisk {
	t.Helper()
	out := map[string]onDisk{".": {Mode: unix.S_IFDIR | 0o755, Links: 2, Same: "."}}
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		target := im.Index.Target(e)
		if target.Kind != tree.Dir && len(target.Xattrs) > 0 {
			continue
		}
		d := onDisk{Mode: target.Mode, UID: e.UID, GID: e.GID, Links: 1, Same: target.Path}
		if !e.ModTime.IsZero() {
			d.MTime, d.Nsec = e.ModTime.Unix(), uint32(e.ModTime.Nanosecond())
		}
		switch target.Kind {
		case tree.Dir:
			d.Mode |= unix.S_IFDIR
			d.Links = 2
		case tree.Regular:
			d.Mode |= unix.S_IFREG
			b, err := io.ReadAll(im.Content(target))
			if err != nil {
				t.Fatal(err)
			}
			d.Data = string(b)
		case tree.Symlink:
			d.Mode, d.Data = unix.S_IFLNK|0o777, target.Linkname
		case tree.CharDevice, tree.Whiteout:
			d.Mode, d.Data = d.Mode|unix.S_IFCHR, fmt.Sprintf("%d:%d", target.Major, target.Minor)
		case tree.BlockDevice:
			d.Mode, d.Data = d.Mode|unix.S_IFBLK, fmt.Sprintf("%d:%d", target.Major, target.Minor)
		case tree.Fifo:
			d.Mode |= unix.S_IFIFO
		}
		out[e.Path] = d
	}
	return withLinks(out)
}

// withLinks fills in the numbers of links.
func withLinks(m map[string]onDisk) map[string]onDisk {
	names, dirs := map[string]uint32{}, map[string]uint32{}
	for path, d := range m {
		names[d.Same]++
		if parent, _ := split(path); d.Mode&unix.S_IFMT == unix.S_IFDIR && path != "." {
			dirs[parent]++
		}
	}
	for path, d := range m {
		d.Links = names[d.Same]
		if d.Mode&unix.S_IFMT == unix.S_IFDIR {
			d.Links = 2 + dirs[path]
		}
		m[path] = d
	}
	return m
}

func TestGvisorReadsImages(t *testing.T) {
	t.Parallel()
	many := list{dir("d")}
	for i := range 3000 {
		many = append(many, reg(fmt.Sprintf("d/file with a long name to fill blocks %06d", i), fmt.Sprint(i)))
	}
	var oddNames list
	for _, n := range []string{"!", "-", ".\x01", "..a", "\xff", "a"} {
		oddNames = append(oddNames, dir(n), sym(n+"/x", n))
	}
	slicesSort(oddNames)
	for name, l := range map[string]list{
		"sample": sample(), "empty": nil, "many names": many, "odd names": oddNames,
		"inline limits": inlineLimits(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, err := layer.Write(t.Context(), l, io.Discard, layer.WriteOptions{Image: tempFile(t)})
			if err != nil {
				t.Fatal(err)
			}
			got, err := readErofs(w.Image.File)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(wantOnDisk(t, w.Image), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// inlineLimits has link targets of all sizes around that which fits next to an inode.
func inlineLimits() list {
	var l list
	for n := 4020; n < 4096; n++ {
		l = append(l, sym(fmt.Sprintf("link%d", n), string(bytes.Repeat([]byte("x"), n))))
	}
	return l
}

func slicesSort(l list) {
	for i := range l {
		for j := i; j > 0 && tree.Compare(l[j].Path, l[j-1].Path) < 0; j-- {
			l[j], l[j-1] = l[j-1], l[j]
		}
	}
}
