package conformance

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// fixedTime is the modification time of everything a case does not say otherwise of:
// it is long ago, so that what a build kept and what it made can be told apart.
func fixedTime() time.Time { return time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC) }

// WriteContext makes the build context of c in dir, which exists and is empty.
func (c *Case) WriteContext(dir string) error {
	for _, f := range c.files {
		name, data := f.Name, f.Data
		if archive, ok := strings.CutPrefix(name, archiveSection); ok {
			b, err := buildArchive(archive, string(data))
			if err != nil {
				return fmt.Errorf("make archive %s: %w", archive, err)
			}
			name, data = archive, b
		}
		if err := writeFile(pathIn(dir, name), data); err != nil {
			return fmt.Errorf("write context: %w", err)
		}
	}
	s := setup{dir: dir, times: map[string]time.Time{}, images: c.built}
	for _, l := range c.setup {
		if err := s.do(l.words[0], l.words[1:]); err != nil {
			return fmt.Errorf("setup of %s, line %d: %w", c.Name, l.number, err)
		}
	}
	return s.finish()
}

// setup interprets the script of a case.
type setup struct {
	dir   string
	times map[string]time.Time
	modes []modeChange
	// images are those that layouts can be made of.
	images map[string][]v1.Image
}

// modeChange is put off to the end, so that a directory can be made unreadable.
type modeChange struct {
	path string
	mode uint32
}

//nolint:funlen // closed switch over the commands of a script
func (s *setup) do(command string, args []string) error {
	least := map[string]int{
		"chmod": 2, "mkdir": 1, "symlink": 2, "link": 2, "mtime": 2, "mkfifo": 1,
		"layout": 2, "xattr": 3, "file": 2, "crlf": 1, "bom": 1, "base64": 2, "fill": 2, "rm": 1,
	}
	if n, ok := least[command]; !ok || len(args) < n {
		return fmt.Errorf("unknown command or too few arguments: %s %q", command, args)
	}
	switch command {
	case "chmod":
		return s.chmod(args[0], args[1:])
	case "mkdir":
		for _, a := range args {
			if err := os.MkdirAll(s.path(a), 0o755); err != nil {
				return err
			}
		}
		return nil
	case "symlink":
		if err := os.MkdirAll(filepath.Dir(s.path(args[1])), 0o755); err != nil {
			return err
		}
		return os.Symlink(args[0], s.path(args[1]))
	case "link":
		return os.Link(s.path(args[0]), s.path(args[1]))
	case "mtime":
		t, err := time.Parse(time.RFC3339Nano, args[1])
		if err != nil {
			return fmt.Errorf("parse time: %w", err)
		}
		s.times[s.path(args[0])] = t
		return nil
	case "mkfifo":
		return unix.Mkfifo(s.path(args[0]), 0o644)
	case "xattr":
		return unix.Lsetxattr(s.path(args[0]), args[1], []byte(args[2]), 0)
	case "file":
		return writeFile(s.path(args[0]), []byte(args[1]))
	case "fill":
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return fmt.Errorf("parse size: %w", err)
		}
		return writeFile(s.path(args[0]), bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n])
	case "layout":
		return s.layout(args[0], args[1:])
	case "rm":
		return os.Remove(s.path(args[0]))
	case "crlf":
		return s.edit(args[0], func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) })
	case "bom":
		return s.edit(args[0], func(b []byte) []byte { return append([]byte("\uFEFF"), b...) })
	default: // base64
		return s.decode(args[0], args[1])
	}
}

func (s *setup) path(name string) string { return pathIn(s.dir, name) }

// pathIn is where a file of a case lies: in the context, or in a directory beside it.
func pathIn(dir, name string) string {
	if strings.HasPrefix(name, besideMark) {
		return dir + "-" + filepath.FromSlash(name[len(besideMark):])
	}
	return filepath.Join(dir, name)
}

func (s *setup) chmod(mode string, names []string) error {
	m, err := strconv.ParseUint(mode, 8, 12)
	if err != nil {
		return fmt.Errorf("parse mode: %w", err)
	}
	for _, n := range names {
		s.modes = append(s.modes, modeChange{s.path(n), uint32(m)})
	}
	return nil
}

func (s *setup) edit(name string, change func([]byte) []byte) error {
	b, err := os.ReadFile(s.path(name))
	if err != nil {
		return err
	}
	return writeFile(s.path(name), change(b))
}

// decode replaces the base64 text file from by the file to.
func (s *setup) decode(from, to string) error {
	text, err := os.ReadFile(s.path(from))
	if err != nil {
		return err
	}
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		return fmt.Errorf("decode %s: %w", from, err)
	}
	if err := os.Remove(s.path(from)); err != nil {
		return err
	}
	return writeFile(s.path(to), b)
}

// finish gives every file its mode, whatever the umask, and its modification time.
func (s *setup) finish() error {
	dirs, err := filepath.Glob(s.dir + "-*")
	if err != nil {
		return fmt.Errorf("list directories: %w", err)
	}
	for _, dir := range append(dirs, s.dir) {
		if err := s.setModes(dir); err != nil {
			return err
		}
	}
	for _, m := range s.modes {
		if err := unix.Chmod(m.path, m.mode); err != nil {
			return fmt.Errorf("chmod %s: %w", m.path, err)
		}
	}
	for _, dir := range append(dirs, s.dir) {
		err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return setTime(p, fixedTime())
		})
		if err != nil {
			return fmt.Errorf("set times: %w", err)
		}
	}
	for p, t := range s.times { // after the others: a file may have another name
		if err := setTime(p, t); err != nil {
			return fmt.Errorf("set time of %s: %w", p, err)
		}
	}
	return nil
}

// setModes gives every file in dir its usual mode.
func (s *setup) setModes(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.Chmod(p, 0o755)
		case d.Type()&fs.ModeSymlink == 0:
			return os.Chmod(p, 0o644)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set modes: %w", err)
	}
	return nil
}

// setTime does not follow links.
func setTime(path string, t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
