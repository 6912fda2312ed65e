// Package cache keeps what steps made for later builds: in a repository of a registry, or in a directory.
//
// A record says what a step's layer is and what it was made of; its names, the keys, are digests of the step and its inputs.
// Nothing that a store says is believed before it has been verified: a record that is missing, damaged or about something
// else is a miss. A store that fails never fails a build.
package cache

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/layer"
)

// Key names a record: the hexadecimal SHA-256 of a step and its inputs.
type Key string

var errKey = errors.New("not a key")

// Validate says whether k can name a record.
func (k Key) Validate() error {
	if digest.NewDigestFromEncoded(digest.SHA256, string(k)).Validate() != nil {
		return fmt.Errorf("%q: %w", string(k), errKey)
	}
	return nil
}

// Record is the result of a step.
type Record struct {
	// Keys are all names of the record.
	Keys []Key
	// Created is when the step ran.
	Created time.Time
	// What says for people what the record is of: the instruction. Image is what was built then. Both may be empty.
	What, Image string
	// Layer is what the step made. Its Digest is empty in a record that has only a listing, of a layer that is elsewhere.
	Layer layer.Descriptor
	// Content identifies what the layer says, but for times; empty if that is not known.
	Content digest.Digest
	// Inputs and Exact identify what the step stood on and read when it ran: as wholes, and just what was read of them.
	// They are empty in a record that is not of a step.
	Inputs, Exact Key
	// Listing describes the blob with the layer's index.
	Listing ocispec.Descriptor
	// Signature vouches for all of this, if there is a [Signer].
	Signature []byte
	// Origin is a repository where the layer was found before the record was copied, or empty: a hint that nobody vouches for.
	Origin string
}

// version is that of the records' form; records of another are misses.
const version = 1

// document is a record as JSON.
type document struct {
	Version   int                `json:"version"`
	Keys      []Key              `json:"keys"`
	Created   time.Time          `json:"created"`
	What      string             `json:"what,omitempty"`
	Image     string             `json:"image,omitempty"`
	MediaType string             `json:"mediaType"`
	Digest    digest.Digest      `json:"digest"`
	Size      int64              `json:"size"`
	DiffID    digest.Digest      `json:"diffID"`
	Content   digest.Digest      `json:"content"`
	Inputs    Key                `json:"inputs"`
	Exact     Key                `json:"exact"`
	Listing   ocispec.Descriptor `json:"listing"`
	Signature []byte             `json:"signature,omitempty"`
	Origin    string             `json:"origin,omitempty"`
}

// MarshalJSON encodes r.
func (r *Record) MarshalJSON() ([]byte, error) { return json.Marshal(r.document()) }

func (r *Record) document() *document {
	return &document{
		Version: version, Keys: r.Keys, Created: r.Created.UTC(), What: r.What, Image: r.Image, MediaType: r.Layer.MediaType, Digest: r.Layer.Digest, Size: r.Layer.Size,
		DiffID: r.Layer.DiffID, Content: r.Content, Inputs: r.Inputs, Exact: r.Exact, Listing: r.Listing, Signature: r.Signature, Origin: r.Origin,
	}
}

// message is what a signature of r is about.
func (r *Record) message() ([]byte, error) {
	d := r.document()
	d.Signature, d.Origin = nil, ""
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write a record: %w", err)
	}
	return append([]byte("hako cache record 1\n"), text...), nil
}

// UnmarshalJSON decodes a record and verifies it.
func (r *Record) UnmarshalJSON(data []byte) error {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return err
	}
	if d.Version != version {
		return fmt.Errorf("a record of version %d", d.Version)
	}
	if err := d.validate(); err != nil {
		return err
	}
	*r = Record{
		Keys: d.Keys, Created: d.Created, What: d.What, Image: d.Image, Content: d.Content, Inputs: d.Inputs, Exact: d.Exact, Listing: d.Listing, Signature: d.Signature, Origin: d.Origin,
		Layer: layer.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, DiffID: d.DiffID},
	}
	return nil
}

// Bounds of what records of ours have.
const (
	maxKeys      = 16
	maxSignature = 1 << 10
	maxOrigin    = 512
)

// validate verifies what has to be there for each kind of record.
func (d *document) validate() error {
	if len(d.Keys) == 0 || len(d.Keys) > maxKeys || len(d.Signature) > maxSignature || len(d.Origin) > maxOrigin || len(d.MediaType) > maxOrigin {
		return errors.New("it has too many keys, or none, or something is too long")
	}
	keys, digests := slices.Clone(d.Keys), []digest.Digest{d.DiffID, d.Listing.Digest}
	if d.Digest != "" {
		keys, digests = append(keys, d.Inputs, d.Exact), append(digests, d.Digest, d.Content)
		if d.Size <= 0 || d.MediaType == "" {
			return errors.New("the layer's size or media type is impossible")
		}
	}
	for _, k := range keys {
		if err := k.Validate(); err != nil {
			return err
		}
	}
	for _, id := range digests {
		if err := id.Validate(); err != nil {
			return fmt.Errorf("digest %q: %w", string(id), err)
		}
	}
	if d.Listing.Size <= 0 || d.Listing.Size > maxListing {
		return errors.New("the listing's size is impossible")
	}
	return nil
}

// Listing is what is known of a layer without its blob.
type Listing struct {
	Index *layer.Index
	// Small are the contents of files that most builds read, by path.
	Small map[string][]byte
}

const (
	// listingType is the media type of a listing: zstd of the small files and the index.
	listingType = "application/vnd.hako.cache.listing.v1+zstd"
	maxListing  = 64 << 20  // bytes, compressed: millions of files
	maxIndex    = 256 << 20 // bytes, unpacked
	maxSmall    = 16 << 20  // bytes of all small files together
	smallFiles  = 1 << 16
)

// listingLimits bound the index of a listing, and so what others can make us hold: some 400 MiB. Layers may have
// more files: then they are fetched to see what is in them.
func listingLimits() layer.Limits { return layer.Limits{Entries: 1 << 20, NameBytes: 192 << 20} }

// encodeListing is deterministic.
func encodeListing(l *Listing) ([]byte, error) {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	if len(l.Small) > smallFiles {
		return nil, errLong
	}
	b := binary.AppendUvarint(nil, uint64(len(l.Small)))
	left := maxSmall
	for _, name := range slices.Sorted(maps.Keys(l.Small)) {
		for _, s := range []string{name, string(l.Small[name])} {
			if left -= len(s); left < 0 {
				return nil, errLong
			}
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := layer.EncodeIndex(w, l.Index, listingLimits()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if out.Len() > maxListing {
		return nil, errLong
	}
	return out.Bytes(), nil
}

func decodeListing(data []byte) (*Listing, error) {
	zr, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxIndex), zstd.WithDecoderMaxWindow(32<<20))
	if err != nil {
		return nil, err
	}
	defer zr.Close()
	r := bufio.NewReader(io.LimitReader(zr, maxIndex))
	count, err := binary.ReadUvarint(r)
	if err != nil || count > smallFiles {
		return nil, errors.Join(errListing, err)
	}
	l := &Listing{Small: map[string][]byte{}}
	left := uint64(maxSmall)
	for range count {
		var pair [2][]byte
		for i := range pair {
			if pair[i], err = readBytes(r, &left); err != nil {
				return nil, err
			}
		}
		l.Small[string(pair[0])] = pair[1]
	}
	if l.Index, err = layer.DecodeIndex(r, listingLimits()); err != nil {
		return nil, err
	}
	return l, nil
}

var (
	errListing = errors.New("the listing is garbled")
	errLong    = errors.New("it is too long")
)

// readBytes reads bytes with their length in front, at most left of them.
func readBytes(r *bufio.Reader, left *uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil || n > *left {
		return nil, errors.Join(errListing, err)
	}
	*left -= n
	out := make([]byte, n)
	_, err = io.ReadFull(r, out)
	return out, err
}
