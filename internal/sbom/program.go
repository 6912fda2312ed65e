package sbom

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"runtime/debug"
	"strings"

	"hako/internal/purl"
)

const (
	// minProgram is less than the smallest Go program has, in bytes.
	minProgram = 64 << 10
	// maxModules bounds the modules of one program.
	maxModules = 20_000
)

// program reads the modules that a Go program was built from. Other files, programs or not, tell of nothing.
func (s *scanner) program(_ context.Context, f *file) error {
	var magic [4]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil {
		return err
	}
	if !isProgram(magic) {
		return nil
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return nil //nolint:nilerr // not written in Go, or stripped of what it is made of: both say nothing
	}
	s.goModules(f.path(), info)
	return nil
}

// isProgram knows ELF, PE and Mach-O: images carry programs for other systems, too.
func isProgram(magic [4]byte) bool {
	switch {
	case bytes.Equal(magic[:], []byte("\x7fELF")), bytes.HasPrefix(magic[:], []byte("MZ")):
		return true
	case bytes.Equal(magic[:], []byte{0xcf, 0xfa, 0xed, 0xfe}), bytes.Equal(magic[:], []byte{0xfe, 0xed, 0xfa, 0xcf}):
		return true
	}
	return false
}

func (s *scanner) goModules(path string, info *debug.BuildInfo) {
	if version, ok := strings.CutPrefix(info.GoVersion, "go"); ok {
		version, _, _ = strings.Cut(version, " ") // "go1.26 X:experiment"
		s.addModule(path, debug.Module{Path: "stdlib", Version: version})
	}
	main := info.Main
	if main.Path == "" {
		main.Path = info.Path // a program that was built outside a module
	}
	if main.Version == "(devel)" {
		main.Version = ""
	}
	s.addModule(path, main)
	for i, m := range info.Deps {
		if i == maxModules {
			return
		}
		if m == nil {
			continue
		}
		if m.Replace != nil {
			m = m.Replace
		}
		s.addModule(path, *m)
	}
}

func (s *scanner) addModule(path string, m debug.Module) {
	if m.Path == "" || strings.HasPrefix(m.Path, "./") || strings.HasPrefix(m.Path, "../") || strings.HasPrefix(m.Path, "/") {
		return // replaced by a directory: it has no name of its own
	}
	p := Package{Type: "golang", Name: m.Path, Version: m.Version, Evidence: []string{path}}
	dir, base := splitLast(strings.ToLower(m.Path))
	p.PURL = purl.URL{Type: "golang", Namespace: dir, Name: base, Version: m.Version}.String()
	s.add(p)
}
