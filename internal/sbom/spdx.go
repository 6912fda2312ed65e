package sbom

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/purl"
)

// PredicateType is what an in-toto statement calls an SPDX document.
const PredicateType = "https://spdx.dev/Document"

// Document is how an inventory is to be written.
type Document struct {
	// Name is the document's.
	Name string
	// Subject is what the inventory is of: "registry.example.com/app"; Digest is its digest, empty if it has none.
	Subject string
	Digest  digest.Digest
	// Created is the document's time. Tool is the program that makes it, "hako-v1.2".
	Created time.Time
	Tool    string
	// Layer gives the digest of the layer that holds the file at a path, empty if there is none; it may be nil.
	Layer func(path string) digest.Digest
}

// The parts of an SPDX 2.3 document that are used: https://spdx.github.io/spdx-spec/v2.3/
type (
	spdxDocument struct {
		ID            string             `json:"SPDXID"`
		Version       string             `json:"spdxVersion"`
		DataLicense   string             `json:"dataLicense"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Files         []spdxFile         `json:"files,omitempty"`
		Licenses      []spdxLicense      `json:"hasExtractedLicensingInfos,omitempty"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID            string         `json:"SPDXID"`
		Name          string         `json:"name"`
		Version       string         `json:"versionInfo,omitempty"`
		Supplier      string         `json:"supplier"`
		Location      string         `json:"downloadLocation"`
		Analyzed      bool           `json:"filesAnalyzed"`
		Checksums     []spdxChecksum `json:"checksums,omitempty"`
		Homepage      string         `json:"homepage,omitempty"`
		SourceInfo    string         `json:"sourceInfo,omitempty"`
		Concluded     string         `json:"licenseConcluded"`
		Declared      string         `json:"licenseDeclared"`
		Copyright     string         `json:"copyrightText"`
		Description   string         `json:"description,omitempty"`
		Purpose       string         `json:"primaryPackagePurpose,omitempty"`
		ExternalNames []spdxName     `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxName struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxFile struct {
		ID        string         `json:"SPDXID"`
		Name      string         `json:"fileName"`
		Checksums []spdxChecksum `json:"checksums"`
		Concluded string         `json:"licenseConcluded"`
		InFile    []string       `json:"licenseInfoInFiles"`
		Copyright string         `json:"copyrightText"`
		Comment   string         `json:"comment,omitempty"`
	}
	spdxLicense struct {
		ID   string `json:"licenseId"`
		Text string `json:"extractedText"`
		Name string `json:"name"`
	}
	spdxRelationship struct {
		From    string `json:"spdxElementId"`
		Type    string `json:"relationshipType"`
		To      string `json:"relatedSpdxElement"`
		Comment string `json:"comment,omitempty"`
	}
)

// evident is what tools look for to learn which file, and so which layer, a package came with; syft coined it.
const evident = "evident-by: indicates the package's existence is evident by the given file"

// SPDX writes the inventory as an SPDX 2.3 document in JSON. The same inventory and d give the same bytes.
func (inv *Inventory) SPDX(d Document) ([]byte, error) {
	doc := &spdxDocument{
		ID: "SPDXRef-DOCUMENT", Version: "SPDX-2.3", DataLicense: "CC0-1.0", Name: d.Name,
		Creation: spdxCreation{Created: d.Created.UTC().Format("2006-01-02T15:04:05Z"), Creators: []string{"Tool: " + d.Tool}},
	}
	root := d.root()
	doc.Packages = []spdxPackage{root}
	doc.relate("SPDXRef-DOCUMENT", "DESCRIBES", root.ID)
	if inv.Distro.ID != "" {
		system := inv.Distro.spdx()
		doc.Packages = append(doc.Packages, system)
		doc.relate(root.ID, "CONTAINS", system.ID)
	}
	names := newLicenses()
	files := map[string]string{}
	for _, f := range inv.Files {
		file := d.file(f)
		files[f.Path] = file.ID
		doc.Files = append(doc.Files, file)
	}
	for _, p := range inv.Packages {
		pkg := p.spdx(names)
		doc.Packages = append(doc.Packages, pkg)
		doc.relate(root.ID, "CONTAINS", pkg.ID)
		for _, e := range p.Evidence {
			doc.Relationships = append(doc.Relationships, spdxRelationship{From: pkg.ID, Type: "OTHER", To: files[e], Comment: evident})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(names.refs)) {
		doc.Licenses = append(doc.Licenses, spdxLicense{ID: id, Text: names.refs[id], Name: names.refs[id]})
	}
	return doc.encode()
}

func (doc *spdxDocument) relate(from, kind, to string) {
	doc.Relationships = append(doc.Relationships, spdxRelationship{From: from, Type: kind, To: to})
}

// encode names the document after its content, as who has no web site of his own may (SPDX 2.3, clause 6.5).
func (doc *spdxDocument) encode() ([]byte, error) {
	data, err := marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode the SPDX document: %w", err)
	}
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:16])
	doc.Namespace = fmt.Sprintf("https://spdx.org/spdxdocs/%s-%s-%s-%s-%s-%s", identifier(doc.Name), id[:8], id[8:12], id[12:16], id[16:20], id[20:])
	return marshal(doc)
}

// marshal leaves "<", ">" and "&" as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// root is the image or directory that everything is in.
func (d Document) root() spdxPackage {
	name := cmp.Or(d.Subject, d.Name)
	p := spdxPackage{
		ID: "SPDXRef-DocumentRoot-" + identifier(name), Name: name, Supplier: noAssertion, Location: noAssertion,
		Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Purpose: "FILE",
	}
	if d.Digest == "" {
		return p
	}
	p.Purpose, p.Version = "CONTAINER", d.Digest.String()
	p.Checksums = []spdxChecksum{{Algorithm: strings.ToUpper(d.Digest.Algorithm().String()), Value: d.Digest.Encoded()}}
	_, base := splitLast(name)
	u := purl.URL{Type: "oci", Name: strings.ToLower(base), Version: d.Digest.String(), Qualifiers: [][2]string{{"repository_url", d.Subject}}}
	p.ExternalNames = []spdxName{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: u.String()}}
	return p
}

func (d Distro) spdx() spdxPackage {
	return spdxPackage{
		ID: "SPDXRef-OperatingSystem-" + identifier(d.ID), Name: d.ID, Version: d.Version, Supplier: noAssertion, Location: noAssertion,
		Concluded: noAssertion, Declared: noAssertion, Copyright: noAssertion, Description: d.Name, Purpose: "OPERATING_SYSTEM",
	}
}

func (d Document) file(f File) spdxFile {
	_, base := splitLast(f.Path)
	out := spdxFile{
		ID: "SPDXRef-File-" + identifier(base) + "-" + short(f.Path), Name: strings.ToValidUTF8("/"+f.Path, "\uFFFD"),
		Checksums: []spdxChecksum{{"SHA1", f.SHA1}, {"SHA256", f.SHA256}},
		Concluded: noAssertion, InFile: []string{noAssertion}, Copyright: noAssertion,
	}
	if d.Layer != nil {
		if layer := d.Layer(f.Path); layer != "" {
			out.Comment = "layerID: " + layer.String() // BuildKit's
		}
	}
	return out
}

func (p *Package) spdx(names *licenses) spdxPackage {
	out := spdxPackage{
		ID: "SPDXRef-Package-" + p.Type + "-" + identifier(p.Name) + "-" + short(p.PURL), Name: p.Name, Version: p.Version,
		Supplier: p.supplier(), Location: noAssertion, SourceInfo: p.sourceInfo(), Concluded: noAssertion,
		Declared: names.expression(p.License), Copyright: noAssertion, Description: p.Description,
		ExternalNames: []spdxName{{Category: "PACKAGE-MANAGER", Type: "purl", Locator: p.PURL}},
	}
	if u, err := url.Parse(p.Homepage); err == nil && u.Host != "" && u.User == nil && (u.Scheme == "http" || u.Scheme == "https") {
		out.Homepage = u.String()
	}
	for _, c := range p.Checksums {
		algorithm, value, _ := strings.Cut(c, ":")
		out.Checksums = append(out.Checksums, spdxChecksum{algorithm, value})
	}
	return out
}

// supplier is a person or an organization: "Person: Jane Doe (jane@example.com)".
func (p *Package) supplier() string {
	name, mail, _ := strings.Cut(p.Supplier, "<")
	name, mail = strings.TrimSpace(name), strings.TrimSuffix(strings.TrimSpace(mail), ">")
	kind := "Person: "
	if p.Type == "rpm" || p.Type == "maven" {
		kind = "Organization: "
	}
	switch {
	case name == "" && mail == "":
		return noAssertion
	case mail == "" || name == "":
		return kind + cmp.Or(name, mail)
	}
	return kind + name + " (" + mail + ")"
}

// sourceInfo says where the package was seen, in the words of the tools that people know.
func (p *Package) sourceInfo() string {
	from := map[string]string{
		"deb": "DPKG DB", "apk": "APK DB", "rpm": "RPM DB", "golang": "go module information", "npm": "installed node module manifest file or lock file",
		"pypi": "installed python package manifest file", "maven": "installed java archive",
	}[p.Type]
	var shown []string
	for _, e := range p.Evidence {
		shown = append(shown, "/"+e)
	}
	const most = 10 // the relationships name all
	if len(shown) > most {
		shown = append(shown[:most], "…")
	}
	return clean("acquired package info from " + from + ": " + strings.Join(shown, ", "))
}
