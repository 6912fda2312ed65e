package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

// printTimes prints the times of an image: its own, those of its history, and those of the files of each layer.
func printTimes(ts *testscript.TestScript, _ bool, args []string) {
	im := pull(ts, args[0])
	config, err := im.ConfigFile()
	ts.Check(err)
	show := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	fmt.Fprintln(ts.Stdout(), "created", show(config.Created.Time))
	for _, h := range config.History {
		fmt.Fprintln(ts.Stdout(), "history", show(h.Created.Time), h.CreatedBy)
	}
	layers, err := im.Layers()
	ts.Check(err)
	for i, l := range layers {
		ts.Check(eachHeader(l, func(h *tar.Header) {
			fmt.Fprintf(ts.Stdout(), "layer %d %s %s\n", i, show(h.ModTime), h.Name)
		}))
	}
}

func eachHeader(l v1.Layer, fn func(*tar.Header)) error {
	r, err := l.Uncompressed()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		fn(h)
	}
}
