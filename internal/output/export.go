package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"

	"hako/internal/diag"
)

// ExportKind is what an export writes.
type ExportKind uint8

// The kinds of exports.
const (
	// OCI is the image as an OCI layout: a tar, or a directory.
	OCI ExportKind = iota + 1
	// Docker is a tar for "docker load". It holds one image.
	Docker
	// Local is the image's file tree in a directory.
	Local
	// Tar is the image's file tree as a tar.
	Tar
)

// String is the kind as --output names it.
func (k ExportKind) String() string {
	return [...]string{"", "oci", "docker", "local", "tar"}[k]
}

// Stdout as a destination means standard output.
const Stdout = "-"

// Export is a place on this machine for a result.
type Export struct {
	Kind ExportKind
	// Dest is a file, or Stdout; a directory for Local, and for OCI if Directory is set.
	Dest      string
	Directory bool
	// Names are references that OCI and Docker call the image by; if there are none, the destinations.
	Names []string
	// Split says where the files of each platform go, of Local and Tar; Source is a path in the tree that is
	// written instead of all of it.
	Split  Split
	Source string
}

// Split says whether the files of each platform get a directory of their own ("linux_arm64").
type Split uint8

// The values of Split.
const (
	// SplitSeveral splits a result that has an index.
	SplitSeveral Split = iota
	SplitAlways
	SplitNever
)

// export is an Export with its names.
type export struct {
	Export
	tags []name.Tag
	// kaniko says that it has kaniko's form: a name even where there is none, and of several names the first.
	kaniko bool
}

// parseExports are all exports, kaniko's first.
func (o *Output) parseExports() ([]export, error) {
	var out []export
	if p := o.options.OCILayoutPath; p != "" {
		out = append(out, export{Export: Export{Kind: OCI, Dest: p, Directory: true}, tags: o.named[:min(len(o.named), 1)], kaniko: true})
	}
	if p := o.options.TarPath; p != "" {
		out = append(out, export{Export: Export{Kind: Docker, Dest: p}, tags: o.named, kaniko: true})
	}
	console := false
	for _, e := range o.options.Exports {
		if e.Dest == Stdout {
			if console || o.options.Stdout == nil {
				return nil, &diag.Error{What: "more than one result for standard output", Hint: "Give all but one a file: dest=FILE."}
			}
			console = true
		}
		tags, err := parseTags(e.Names)
		if err != nil {
			return nil, err
		}
		if len(tags) == 0 {
			tags = o.named
		}
		out = append(out, export{Export: e, tags: tags})
	}
	return out, distinctPlaces(out)
}

// distinctPlaces refuses two exports to one place: the second would replace the first, or be mixed with it.
func distinctPlaces(all []export) error {
	seen := map[string]bool{}
	for _, e := range all {
		place := e.Dest
		if place != Stdout {
			place = filepath.Clean(place)
		}
		if fi, err := os.Stat(place); err == nil && !fi.IsDir() && !fi.Mode().IsRegular() {
			continue // a device or a pipe takes everything
		}
		if seen[place] {
			return &diag.Error{What: fmt.Sprintf("two results are to be written to %s", e.Dest), Hint: "Give each a place of its own."}
		}
		seen[place] = true
	}
	return nil
}

// isDirectory says whether Dest is one.
func (e *export) isDirectory() bool { return e.Kind == Local || e.Kind == OCI && e.Directory }

// check finds what would keep the export from being written.
func (e *export) check() error {
	if e.Dest == Stdout {
		return nil
	}
	fi, err := os.Stat(e.Dest)
	switch {
	case err == nil && fi.IsDir() && !e.isDirectory():
		return e.failed(errors.New("it is a directory"))
	case err == nil && !fi.IsDir() && e.isDirectory():
		return e.failed(errors.New("it is not a directory"))
	case errors.Is(err, fs.ErrNotExist) && !e.isDirectory():
		if _, err := os.Stat(filepath.Dir(e.Dest)); err != nil {
			return e.failed(err)
		}
	}
	return nil
}

// failed says which export err is about.
func (e *export) failed(err error) error {
	what := map[ExportKind]string{OCI: "the OCI archive", Docker: "the archive", Local: "the files to", Tar: "the files as an archive to"}[e.Kind]
	if e.Kind == OCI && e.Directory {
		what = "the OCI layout"
	}
	dest := e.Dest
	if dest == Stdout {
		dest = "standard output"
	}
	return &diag.Error{What: fmt.Sprintf("write %s %s", what, dest), Cause: err}
}

// export writes r to one place.
func (o *Output) export(ctx context.Context, e export, r *Result) error {
	switch {
	case e.Kind == Local:
		return o.writeFiles(ctx, e, r)
	case e.Kind == Tar:
		return o.fill(e, func(w io.Writer) error { return writeFilesTar(ctx, w, e, r) })
	case e.Kind == Docker:
		return o.fill(e, func(w io.Writer) error { return writeDockerTar(ctx, w, e, r) })
	case e.Directory:
		return writeLayout(ctx, layoutDir(e.Dest), e, r)
	}
	return o.fill(e, func(w io.Writer) error { return writeLayoutTar(ctx, w, e, r) })
}

// fill lets write fill the file or stream of an export.
func (o *Output) fill(e export, write func(io.Writer) error) error {
	if e.Dest == Stdout {
		return buffered(o.options.Stdout, write)
	}
	return writeFile(e.Dest, write)
}
