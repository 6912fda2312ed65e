package sbom

import (
	"bytes"
	"strings"

	"hako/internal/tree"
)

// Distro is the distribution that a tree calls itself.
type Distro struct {
	// ID, Version, Name and Codename are os-release's ID, VERSION_ID, PRETTY_NAME and VERSION_CODENAME.
	ID, Version, Name, Codename string
}

// maxOSRelease bounds os-release, in bytes.
const maxOSRelease = 64 << 10

// readDistro reads os-release (os-release(5)) where the file or, most often, what it links to is.
func readDistro(t tree.Tree) Distro {
	for _, p := range []string{"etc/os-release", "usr/lib/os-release"} {
		real, err := tree.Resolve(t, p, true)
		if err != nil {
			continue
		}
		data, err := content(t, real, maxOSRelease)
		if err == nil {
			return parseDistro(data)
		}
	}
	return Distro{}
}

func parseDistro(data []byte) Distro {
	var d Distro
	for line := range bytes.Lines(data) {
		k, v, ok := strings.Cut(strings.TrimSpace(string(line)), "=")
		if !ok {
			continue
		}
		v = clean(unquote(v))
		switch k {
		case "ID":
			d.ID = strings.ToLower(v)
		case "VERSION_ID":
			d.Version = v
		case "PRETTY_NAME":
			d.Name = v
		case "VERSION_CODENAME":
			d.Codename = v
		}
	}
	return d
}

// unquote takes a value out of the shell's quotes.
func unquote(v string) string {
	if len(v) < 2 || (v[0] != '"' && v[0] != '\'') || v[len(v)-1] != v[0] {
		return v
	}
	quote, v := v[0], v[1:len(v)-1]
	if quote == '\'' {
		return v
	}
	var b strings.Builder
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) {
			i++
		}
		b.WriteByte(v[i])
	}
	return b.String()
}

// qualifier is the distribution as package URLs name it, "debian-12"; empty if unknown.
func (d Distro) qualifier() string {
	switch {
	case d.ID == "":
		return ""
	case d.Version != "":
		return d.ID + "-" + d.Version
	case d.Codename != "":
		return d.ID + "-" + d.Codename
	}
	return d.ID
}
