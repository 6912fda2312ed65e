package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"

	"hako/internal/minibase"
)

// loadShell compiles the shell of the base image in dir and lists it with the links to it.
func loadShell(ctx context.Context, dir string) ([]ShellFile, error) {
	box, err := minibase.Compile(ctx, "amd64", dir)
	if err != nil {
		return nil, err
	}
	var root bytes.Buffer
	if err := minibase.WriteRootFS(&root, box); err != nil {
		return nil, err
	}
	var files []ShellFile
	tr := tar.NewReader(&root)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read shell: %w", err)
		}
		if path.Dir(h.Name) != "bin" || h.Typeflag == tar.TypeDir {
			continue
		}
		f := ShellFile{Path: h.Name, Target: h.Linkname}
		if h.Typeflag == tar.TypeReg {
			if f.Content, err = io.ReadAll(tr); err != nil {
				return nil, fmt.Errorf("read shell: %w", err)
			}
		}
		files = append(files, f)
	}
}
