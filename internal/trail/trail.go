// Package trail notes what the steps of a build were made of, so that a later build can say what has changed since.
//
// A trail holds no values and no content: of all that counts only short digests are kept, too short to find a value by trying,
// and the names of variables and files.
package trail

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"hako/internal/tree"
)

// Trail is what a build was made of.
type Trail struct {
	Version int     `json:"version"`
	Stages  []Stage `json:"stages"`
}

// Stage is one stage with the steps that make layers.
type Stage struct {
	Name string `json:"name"`
	// Base says what it starts from, for people, and Digest what that was.
	Base   string `json:"base,omitempty"`
	Digest string `json:"digest,omitempty"`
	Steps  []Step `json:"steps"`
}

// Step is one step.
type Step struct {
	ID   string `json:"id"`
	Text string `json:"text"`
	// Parts are what the operation consists of.
	Parts []Part `json:"parts"`
	Reads []Read `json:"reads,omitempty"`
	// After identifies what the stage held after it; empty if it never got there.
	After string `json:"after,omitempty"`
}

// Part is one part of an operation.
type Part struct {
	// Name is for people: "ARG VERSION", "--chown".
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

// Read is a place that a step reads.
type Read struct {
	// Name is for people: "the context".
	Name string `json:"name"`
	// Digest identifies what is read, Whole all that there is; what is not known is empty.
	Digest string `json:"digest,omitempty"`
	Whole  string `json:"whole,omitempty"`
	Files  *Files `json:"-"`
}

const (
	version = 1
	// maxFiles bounds what all lists of files together have, in bytes.
	maxFiles = 8 << 20
	// maxSummary bounds the rest, in bytes: thousands of steps.
	maxSummary = 4 << 20
	// summary is the name of the part without the lists of files.
	summary = "trail"
)

// Short is the digest of a part: enough to see a change, and too little to find out what it was made of.
func Short(name, value string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%s", len(name), name, value))
	const enough = 4 // bytes
	return hex.EncodeToString(sum[:enough])
}

// Files lists files with short digests, in at most a part of maxFiles bytes. Its zero value is empty. The nil Files notes nothing.
type Files struct {
	data []byte
	// cut says that there are more.
	cut bool
}

const fileDigests = 1 + 4 + 8 // bytes: the kind, metadata, content

// Add notes a file. content is its digest.
func (f *Files) Add(e *tree.Entry, content string) {
	if f == nil || f.cut {
		return
	}
	if len(f.data)+len(e.Path)+fileDigests+binary.MaxVarintLen64 > maxFiles {
		f.cut = true
		return
	}
	if e.Kind == tree.Symlink || e.Kind == tree.Hardlink {
		content = e.Linkname
	}
	meta := fmt.Appendf(nil, "%d %d %d %d %d", e.Mode, e.UID, e.GID, e.Major, e.Minor)
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		meta = fmt.Appendf(meta, " %q %q", name, e.Xattrs[name])
	}
	m, c := sha256.Sum256(meta), sha256.Sum256([]byte(content))
	f.data = append(binary.AppendUvarint(f.data, uint64(len(e.Path))), e.Path...)
	f.data = append(append(append(f.data, byte(e.Kind)), m[:4]...), c[:8]...)
}

// byPath takes the list apart.
func (f *Files) byPath() map[string]string {
	out := map[string]string{}
	if f == nil {
		return out
	}
	for rest := f.data; len(rest) > 0; {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)) || uint64(len(rest)-size) < n+fileDigests {
			return out // garbled: what follows is as good as unknown
		}
		rest = rest[size:]
		out[string(rest[:n])] = string(rest[n : n+fileDigests])
		rest = rest[n+fileDigests:]
	}
	return out
}

// Encode is the trail as files by name.
func (t *Trail) Encode() (map[string][]byte, error) {
	cp := *t
	cp.Version = version
	text, err := json.Marshal(&cp)
	if err != nil {
		return nil, fmt.Errorf("write a trail: %w", err)
	}
	if len(text) > maxSummary {
		return nil, fmt.Errorf("write a trail: %w", errLong)
	}
	out := map[string][]byte{summary: text}
	left := maxFiles
	t.eachRead(func(name string, r *Read) {
		if r.Files == nil || len(r.Files.data) == 0 || len(r.Files.data) > left {
			return
		}
		left -= len(r.Files.data)
		cut := byte(0)
		if r.Files.cut {
			cut = 1
		}
		out[name] = append([]byte{cut}, r.Files.data...)
	})
	return out, nil
}

// eachRead calls fn with all reads and names for their lists of files.
func (t *Trail) eachRead(fn func(name string, r *Read)) {
	for i := range t.Stages {
		for j := range t.Stages[i].Steps {
			for k := range t.Stages[i].Steps[j].Reads {
				fn(fmt.Sprintf("files/%d/%d/%d", i, j, k), &t.Stages[i].Steps[j].Reads[k])
			}
		}
	}
}

var (
	errVersion = errors.New("it is of another version")
	errLong    = errors.New("it is too long")
)

// Decode is the trail that Encode wrote.
func Decode(files map[string][]byte) (*Trail, error) {
	if len(files[summary]) > maxSummary {
		return nil, fmt.Errorf("read a trail: %w", errLong)
	}
	t := &Trail{}
	if err := json.Unmarshal(files[summary], t); err != nil {
		return nil, fmt.Errorf("read a trail: %w", err)
	}
	if t.Version != version {
		return nil, fmt.Errorf("read a trail: %w", errVersion)
	}
	t.eachRead(func(name string, r *Read) {
		if data := files[name]; len(data) > 0 {
			r.Files = &Files{data: data[1:], cut: data[0] != 0}
		}
	})
	return t, nil
}
