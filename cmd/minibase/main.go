// Command minibase builds hako's small base image and writes it where it is told to:
//
//	go run ./cmd/minibase -o rootfs:FILE.tar     the file tree as a plain tar
//	go run ./cmd/minibase -o tar:FILE.tar[,REF]  an archive for docker load
//	go run ./cmd/minibase -o layout:DIR          an OCI layout
//	go run ./cmd/minibase -o push:REF            a registry; plain HTTP on loopback
//
// Several -o may be given. The digest of the image is printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"hako/internal/minibase"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "minibase:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("minibase", flag.ContinueOnError)
	arch := flags.String("arch", runtime.GOARCH, "architecture")
	var outputs []string
	flags.Func("o", "rootfs:FILE, tar:FILE[,REF], layout:DIR or push:REF; repeatable", func(s string) error {
		outputs = append(outputs, s)
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	if len(outputs) == 0 || flags.NArg() > 0 {
		return errors.New("nothing to do: give at least one -o and no other arguments")
	}
	dir, err := os.MkdirTemp("", "minibase")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	box, err := minibase.Compile(ctx, *arch, dir)
	if err != nil {
		return err
	}
	im, err := minibase.Image(box, *arch)
	if err != nil {
		return err
	}
	for _, o := range outputs {
		if err := write(ctx, o, box, im); err != nil {
			return fmt.Errorf("output %s: %w", o, err)
		}
	}
	d, err := im.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Println(d)
	return err
}

func write(ctx context.Context, output, box string, im v1.Image) error {
	kind, to, _ := strings.Cut(output, ":")
	switch kind {
	case "rootfs":
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		return errors.Join(minibase.WriteRootFS(f, box), f.Close())
	case "tar":
		path, refName, named := strings.Cut(to, ",")
		if !named {
			refName = "minibase:latest"
		}
		ref, err := name.ParseReference(refName)
		if err != nil {
			return err
		}
		return tarball.WriteToFile(path, ref, im)
	case "layout":
		p, err := layout.Write(to, empty.Index)
		if err != nil {
			return err
		}
		return p.AppendImage(im)
	case "push":
		ref, err := name.ParseReference(to)
		if err != nil {
			return err
		}
		return remote.Write(ref, im, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	}
	return fmt.Errorf("unknown kind %q", kind)
}
