// Package imagedir is a directory of base images, as kaniko's warmer fills it: in both of kaniko's layouts, beside each other.
//
//	sha256:DIGEST        a docker archive (GoogleContainerTools, Chainguard), with the manifest in sha256:DIGEST.json;
//	                     or a directory, an OCI layout (osscontainertools, hako)
//	.warmer-locks/       locks of warmers
//	.hako/indexes        indexes by digest: which image of an index is which, for people without a registry
//	.hako/names          references, and the digests that they had when they were fetched
//
// DIGEST is that of a manifest for one platform. What is in the directory is believed only after it has been hashed, so
// a file that is damaged is one that is missing. Names are believed only by those who ask for them.
package imagedir

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/blob"
)

const (
	locksDir   = ".warmer-locks" // osscontainertools/kaniko
	indexesDir = ".hako/indexes"
	namesDir   = ".hako/names"
	tempPrefix = ".warming-"

	smallLimit = 16 << 20 // 16 MiB: manifests, indexes, configurations, names
)

// ErrMiss says that the directory does not have what was asked for, or not whole.
var ErrMiss = errors.New("not in the directory of base images")

// Options says which directory it is.
type Options struct {
	// Path is the directory. It need not exist.
	Path string
	// TTL is the age at which an image is too old; zero means never.
	TTL time.Duration
	// Now is the clock. It must be set.
	Now func() time.Time
	// Archives says to write docker archives in place of OCI layouts.
	Archives bool
}

// Dir is a directory of base images. It keeps nothing open, and may be used from many goroutines and processes.
type Dir struct{ options Options }

// New returns the directory at o.Path. Nothing is read or made yet.
func New(o Options) *Dir { return &Dir{options: o} }

// Path is where the directory is.
func (d *Dir) Path() string { return d.options.Path }

// Exists says whether there is such a directory at all.
func (d *Dir) Exists() bool {
	fi, err := os.Stat(d.options.Path)
	return err == nil && fi.IsDir()
}

// Document is a manifest or an index as a registry had it.
type Document struct {
	// MediaType may be empty if the document does not say it.
	MediaType string
	Digest    digest.Digest
	Data      []byte
}

// newDocument returns the document that data is if it has the digest.
func newDocument(want digest.Digest, data []byte) (*Document, error) {
	if got := want.Algorithm().FromBytes(data); got != want {
		return nil, fmt.Errorf("its content has the digest %s", got)
	}
	var probe struct {
		MediaType string `json:"mediaType"`
	}
	// What is no JSON is told apart by whoever reads it.
	_ = json.Unmarshal(data, &probe)
	return &Document{MediaType: probe.MediaType, Digest: want, Data: data}, nil
}

// Find returns the image whose manifest has the digest, however old it is. The error Is ErrMiss if it is not there whole.
func (d *Dir) Find(sum digest.Digest) (*Image, error) {
	im, err := d.find(sum)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", sum, ErrMiss, err)
	}
	return im, nil
}

func (d *Dir) find(sum digest.Digest) (*Image, error) {
	if err := sum.Validate(); err != nil {
		return nil, err
	}
	path := filepath.Join(d.options.Path, sum.String())
	fi, err := os.Stat(path)
	if err != nil {
		return nil, plain(err)
	}
	im := &Image{Stored: fi.ModTime()}
	var data []byte
	if fi.IsDir() {
		im.blobs = layoutBlobs{path}
		data, err = readSmall(filepath.Join(path, blobPath(sum)))
	} else {
		im.blobs, err = openArchive(path)
		if err == nil {
			data, err = readSmall(path + ".json")
		}
	}
	if err != nil {
		return nil, plain(err)
	}
	if im.Manifest, err = newDocument(sum, data); err != nil {
		return nil, err
	}
	return im, im.complete()
}

// Expired says whether an image is too old.
func (d *Dir) Expired(im *Image) bool {
	return d.options.TTL > 0 && im.Stored.Add(d.options.TTL).Before(d.options.Now())
}

// Index returns an index that was written beside its images. The error Is ErrMiss if there is none.
func (d *Dir) Index(sum digest.Digest) (*Document, error) {
	if err := sum.Validate(); err != nil {
		return nil, err
	}
	data, err := readSmall(filepath.Join(d.options.Path, indexesDir, sum.String()))
	if err == nil {
		var doc *Document
		if doc, err = newDocument(sum, data); err == nil {
			return doc, nil
		}
	}
	return nil, fmt.Errorf("index %s: %w: %w", sum, ErrMiss, plain(err))
}

// named is what a reference stood for.
type named struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Time   time.Time     `json:"time"`
}

// Named returns the digest, of a manifest or of an index, that the reference ("index.docker.io/library/debian:12") had when
// its image was last fetched. The error Is ErrMiss if it was not.
func (d *Dir) Named(name string) (digest.Digest, error) {
	data, err := readSmall(d.namePath(name))
	var n named
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err == nil && n.Name != name {
		err = errors.New("it is about another name")
	}
	if err == nil {
		err = n.Digest.Validate()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %w", name, ErrMiss, plain(err))
	}
	return n.Digest, nil
}

func (d *Dir) namePath(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(d.options.Path, namesDir, hex.EncodeToString(sum[:]))
}

// readSmall reads a file of a few bytes to a few megabytes.
func readSmall(path string) ([]byte, error) {
	f, size, err := blob.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if size > smallLimit {
		return nil, fmt.Errorf("%s is larger than %d MiB", filepath.Base(path), smallLimit>>20)
	}
	return io.ReadAll(io.LimitReader(f, smallLimit))
}

// plain is an error without the path that the user knows.
func plain(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return fmt.Errorf("%s: %w", filepath.Base(p.Path), p.Err)
	}
	return err
}
