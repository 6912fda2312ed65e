package cli

import (
	"errors"
	"fmt"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	"github.com/rogpeppe/go-internal/testscript"

	"hako/internal/image/imagetest"
)

// checkDocuments holds all documents behind a reference to their schemas.
func checkDocuments(ts *testscript.TestScript, refName string) {
	ref, err := name.ParseReference(refName)
	ts.Check(err)
	top, err := remote.Get(ref)
	ts.Check(err)
	ts.Check(imagetest.CheckAll(string(top.MediaType), top.Manifest, func(d digest.Digest) ([]byte, error) {
		at := ref.Context().Digest(d.String())
		if child, err := remote.Get(at); err == nil {
			return child.Manifest, nil
		}
		blob, err := remote.Layer(at)
		if err != nil {
			return nil, err
		}
		rc, err := blob.Compressed()
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(rc)
		return data, errors.Join(err, rc.Close())
	}))
}

func printMedia(ts *testscript.TestScript, _ bool, args []string) {
	m, err := pull(ts, args[0]).Manifest()
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), m.MediaType)
	fmt.Fprintln(ts.Stdout(), m.Config.MediaType)
	for _, l := range m.Layers {
		fmt.Fprintln(ts.Stdout(), l.MediaType)
	}
}

func printAnnotations(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	d, err := remote.Get(ref)
	ts.Check(err)
	if !d.MediaType.IsIndex() {
		m, err := pull(ts, args[0]).Manifest()
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), "manifest", m.Annotations)
		return
	}
	idx, err := d.ImageIndex()
	ts.Check(err)
	list, err := idx.IndexManifest()
	ts.Check(err)
	fmt.Fprintln(ts.Stdout(), "index", list.Annotations)
	for _, d := range list.Manifests {
		m := manifest(ts, idx, d.Digest)
		fmt.Fprintln(ts.Stdout(), "descriptor", d.Platform, d.Annotations)
		fmt.Fprintln(ts.Stdout(), "manifest", d.Platform, m.Annotations)
	}
}

func manifest(ts *testscript.TestScript, idx v1.ImageIndex, h v1.Hash) *v1.Manifest {
	im, err := idx.Image(h)
	ts.Check(err)
	m, err := im.Manifest()
	ts.Check(err)
	return m
}

func printHistory(ts *testscript.TestScript, _ bool, args []string) {
	config, err := pull(ts, args[0]).ConfigFile()
	ts.Check(err)
	for _, h := range config.History {
		kind := "layer"
		if h.EmptyLayer {
			kind = "empty"
		}
		fmt.Fprintln(ts.Stdout(), kind, h.CreatedBy)
	}
}
