package sbom

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"hako/internal/purl"
)

const (
	// maxDirectory bounds what is read to list an archive, in bytes: some hundred thousand entries.
	maxDirectory = 16 << 20
	// maxNested bounds an archive in an archive, maxInflated all that is inflated of one file, in bytes.
	maxNested   = 128 << 20
	maxInflated = 1 << 30
	// maxJarDepth is how deep archives lie in each other: an application in a server's archive, and its libraries.
	maxJarDepth = 3
	// maxProperties bounds a manifest and a pom.properties, in bytes.
	maxProperties = 1 << 20
)

// isJava finds Java archives by their names.
func isJava(base string) bool {
	switch strings.ToLower(path.Ext(base)) {
	case ".jar", ".war", ".ear", ".par", ".sar", ".nar", ".jpi", ".hpi", ".kar", ".rar":
		return true
	}
	return false
}

// java reads what an archive and the archives in it say of themselves.
func (s *scanner) java(ctx context.Context, f *file) error {
	j := &jar{scanner: s, evidence: f.path(), left: maxInflated}
	return j.read(ctx, archive{f, f.entry.Size, path.Base(f.path())}, 0)
}

// jar is the reading of one file and all archives in it.
type jar struct {
	scanner  *scanner
	evidence string
	left     int64 // bytes that may still be inflated
}

// archive is a Java archive: bytes, their number and a name.
type archive struct {
	io.ReaderAt
	size int64
	name string
}

var (
	errDirectory = errors.New("the archive's directory is too large")
	errInflated  = errors.New("the archive inflates to too much")
)

// metered fails when more than left bytes were read.
type metered struct {
	io.ReaderAt
	left int64
}

func (m *metered) ReadAt(p []byte, off int64) (int, error) {
	if m.left -= int64(len(p)); m.left < 0 {
		return 0, errDirectory
	}
	return m.ReaderAt.ReadAt(p, off)
}

func (j *jar) read(ctx context.Context, a archive, depth int) error {
	meter := &metered{a, maxDirectory}
	z, err := zip.NewReader(meter, a.size)
	if meter.left < 0 {
		return errDirectory
	}
	if errors.Is(err, zip.ErrFormat) && depth == 0 {
		return nil // ".rar" is also another kind of archive
	}
	if err != nil {
		return err
	}
	meter.left = a.size + maxInflated // now the entries are read, each with its own bound
	var manifest map[string]string
	var poms []map[string]string
	var errs []error
	for _, e := range z.File {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var err error
		switch base := path.Base(e.Name); {
		case e.Name == "META-INF/MANIFEST.MF":
			manifest, err = j.properties(e, manifestPairs)
		case base == "pom.properties" && strings.HasPrefix(e.Name, "META-INF/maven/"):
			var pom map[string]string
			pom, err = j.properties(e, propertyPairs)
			poms = append(poms, pom)
		case isJava(base) && depth < maxJarDepth:
			err = j.nested(ctx, e, depth)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name, err))
		}
		if errors.Is(err, errInflated) {
			break
		}
	}
	j.add(a.name, manifest, poms)
	if len(errs) > 0 {
		return errs[0] // one is enough for a warning
	}
	return nil
}

// nested reads an archive in an archive. It is inflated to memory.
func (j *jar) nested(ctx context.Context, e *zip.File, depth int) error {
	data, err := j.inflate(e, maxNested)
	if err != nil {
		return err
	}
	return j.read(ctx, archive{bytes.NewReader(data), int64(len(data)), path.Base(e.Name)}, depth+1)
}

// inflate reads an entry of at most limit bytes, whatever its header says.
func (j *jar) inflate(e *zip.File, limit int64) ([]byte, error) {
	limit = min(limit, j.left)
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close() // read only: nothing to lose
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	j.left -= int64(len(data))
	if int64(len(data)) > limit {
		return nil, errInflated
	}
	return data, err
}

func (j *jar) properties(e *zip.File, pairs func(string) map[string]string) (map[string]string, error) {
	data, err := j.inflate(e, maxProperties)
	if err != nil {
		return nil, err
	}
	return pairs(string(data)), nil
}

// manifestPairs reads the main section of a manifest; a line that begins with a space continues the one before.
func manifestPairs(text string) map[string]string {
	out, last := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return out
		}
		if line[0] == ' ' {
			if len(out[last]) < maxText {
				out[last] += line[1:]
			}
			continue
		}
		k, v, ok := strings.Cut(line, ":")
		if last = strings.ToLower(k); ok && len(out) < maxFields {
			out[last] = strings.TrimSpace(v)
		}
	}
	return out
}

// propertyPairs reads "key=value" lines.
func propertyPairs(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		k, v, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(k, "#") && len(out) < maxFields {
			out[strings.TrimSpace(k)] = clean(v)
		}
	}
	return out
}

// add adds what an archive is: what Maven left in it, or else what its manifest and name say.
func (j *jar) add(name string, manifest map[string]string, poms []map[string]string) {
	found := false
	for _, p := range poms {
		if p["artifactId"] != "" {
			found = true
			j.artifact(p["groupId"], p["artifactId"], p["version"], manifest)
		}
	}
	if found {
		return
	}
	base := strings.TrimSuffix(name, path.Ext(name))
	artifact, version := splitVersion(base)
	version = cmp.Or(version, manifest["implementation-version"], manifest["bundle-version"], manifest["specification-version"])
	if version == "" && manifest == nil {
		return
	}
	group := cmp.Or(manifest["implementation-vendor-id"], strings.TrimSuffix(symbolicName(manifest), "."+artifact), artifact)
	j.artifact(group, artifact, version, manifest)
}

// symbolicName is OSGi's name of the archive without its directives.
func symbolicName(manifest map[string]string) string {
	name, _, _ := strings.Cut(manifest["bundle-symbolicname"], ";")
	return strings.TrimSpace(name)
}

// splitVersion cuts "guava-33.0-jre" before the first part that begins with a digit.
func splitVersion(base string) (name, version string) {
	for i := 1; i+1 < len(base); i++ {
		if base[i] == '-' && '0' <= base[i+1] && base[i+1] <= '9' {
			return base[:i], base[i+1:]
		}
	}
	return base, ""
}

func (j *jar) artifact(group, artifact, version string, manifest map[string]string) {
	j.scanner.add(Package{
		Type: "maven", Name: artifact, Version: version, Evidence: []string{j.evidence},
		Supplier: cmp.Or(manifest["implementation-vendor"], manifest["bundle-vendor"]), License: bundleLicense(manifest),
		PURL: purl.URL{Type: "maven", Namespace: strings.ReplaceAll(group, "/", "."), Name: artifact, Version: version}.String(),
	})
}

// bundleLicense is OSGi's licence if it is a name and no address.
func bundleLicense(manifest map[string]string) string {
	l, _, _ := strings.Cut(manifest["bundle-license"], ";")
	if l = strings.Trim(strings.TrimSpace(l), `"`); strings.Contains(l, "://") {
		return ""
	}
	return l
}
