package sbom

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"
)

// noAssertion is SPDX's word for what nobody says.
const noAssertion = "NOASSERTION"

// licenses turns what packages declare into SPDX license expressions
// (https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/), and keeps the words that are none.
type licenses struct {
	// known maps the identifiers of SPDX's list, in lower case, to themselves; exceptions likewise.
	known, exceptions map[string]string
	// refs are the texts behind LicenseRef-….
	refs map[string]string
}

func newLicenses() *licenses {
	l := &licenses{known: map[string]string{}, exceptions: map[string]string{}, refs: map[string]string{}}
	for _, id := range slices.Concat(spdxlicenses.GetLicenses(), spdxlicenses.GetDeprecated()) {
		l.known[strings.ToLower(id)] = id
	}
	for _, id := range spdxlicenses.GetExceptions() {
		l.exceptions[strings.ToLower(id)] = id
	}
	return l
}

// expression is declared as an SPDX expression. What has no grammar is one name, however many words it has.
func (l *licenses) expression(declared string) string {
	switch declared = clean(declared); strings.ToUpper(declared) {
	case "", noAssertion, "NONE", "UNKNOWN", "UNLICENSED":
		return noAssertion
	}
	p := &expressionParser{licenses: l, words: expressionWords(declared), refs: map[string]string{}}
	if !p.expression() || len(p.words) > 0 {
		id := licenseRef(declared)
		l.refs[id] = declared
		return id
	}
	maps.Copy(l.refs, p.refs)
	return strings.Join(p.out, "")
}

// expressionWords cuts a text into words and parentheses.
func expressionWords(s string) []string {
	return strings.Fields(strings.NewReplacer("(", " ( ", ")", " ) ").Replace(s))
}

// expressionParser reads words and writes the expression.
type expressionParser struct {
	*licenses
	words []string
	out   []string
	refs  map[string]string // what it found that is not listed
}

// ref is the name of a licence that is not listed.
func (p *expressionParser) ref(text string) string {
	id := licenseRef(text)
	p.refs[id] = text
	return id
}

// id is a licence's identifier.
func (p *expressionParser) id(w string) string {
	if id, ok := p.listed(w); ok {
		return id
	}
	return p.ref(w)
}

func (p *expressionParser) next() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *expressionParser) take() string {
	w := p.next()
	p.words = p.words[min(1, len(p.words)):]
	return w
}

// expression reads terms with operators between them. Lower-case operators count too: RPM used them for years.
func (p *expressionParser) expression() bool {
	for {
		if !p.term() {
			return false
		}
		op := strings.ToUpper(p.next())
		if op != "AND" && op != "OR" {
			return true
		}
		p.take()
		p.out = append(p.out, " "+op+" ")
	}
}

func (p *expressionParser) term() bool {
	w := p.take()
	switch upper := strings.ToUpper(w); {
	case w == "(":
		p.out = append(p.out, "(")
		if !p.expression() || p.take() != ")" {
			return false
		}
		p.out = append(p.out, ")")
		return true
	case w == "", w == ")", upper == "AND", upper == "OR", upper == "WITH":
		return false
	}
	if strings.ToUpper(p.next()) != "WITH" {
		p.out = append(p.out, p.id(w))
		return true
	}
	p.take()
	exception := p.take()
	if exception == "" || exception == "(" || exception == ")" {
		return false
	}
	id, known := p.listed(w)
	with := p.exceptions[strings.ToLower(exception)]
	if !known || with == "" {
		p.out = append(p.out, p.ref(w+" WITH "+exception))
		return true
	}
	p.out = append(p.out, id+" WITH "+with)
	return true
}

// listed finds an identifier of SPDX's list, with or without "+".
func (l *licenses) listed(w string) (string, bool) {
	if id, ok := l.known[strings.ToLower(w)]; ok {
		return id, true
	}
	plain, later := strings.CutSuffix(w, "+")
	id, ok := l.known[strings.ToLower(plain)]
	return id + "+", ok && later
}

// licenseRef is a name of our own for a licence that SPDX does not list.
func licenseRef(text string) string {
	name := strings.TrimPrefix(text, "LicenseRef-")
	id := identifier(name)
	if id != name {
		id += "-" + short(text) // two texts may look the same now
	}
	return "LicenseRef-" + strings.TrimPrefix(id, "-")
}

// maxIdentifier bounds what a name adds to an identifier, in bytes.
const maxIdentifier = 64

// identifier keeps what SPDX allows in identifiers: letters, digits, "." and "-".
func identifier(s string) string {
	s = strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, s)
	return strings.Trim(s[:min(len(s), maxIdentifier)], "-")
}

// short tells texts apart in identifiers.
func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
