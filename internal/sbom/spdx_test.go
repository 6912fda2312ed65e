package sbom_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/sbom"
	"hako/internal/schematest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const layerDigest = "sha256:9b18e9b68314027565b90ff6189d65942c0f7986da80df008b8431276885218e"

func document() sbom.Document {
	return sbom.Document{
		Name: "sbom", Subject: "registry.example.com:5000/team/App", Created: time.Unix(1700000000, 5), Tool: "hako-test",
		Digest: "sha256:e8275b2b76280af67e26f068e5d585eb905f8dfd2f1918b3229db98133cb4862",
		Layer:  func(string) digest.Digest { return layerDigest },
	}
}

// everything is an image with one package of each kind, some with odd texts.
func everything(t *testing.T) memory {
	return memory{
		"usr/lib/os-release":                     debian,
		"var/lib/dpkg/status":                    "Package: bash\nStatus: install ok installed\nMaintainer: Matthias Klose <doko@debian.org>\nArchitecture: amd64\nVersion: 5.2-1\nHomepage: http://user:pw@example.com/\nDescription: GNU Bourne Again SHell & \"more\"\n",
		"usr/share/doc/bash/copyright":           "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+\n\nFiles: a\nLicense: GPL-2+ with Libtool exception or Expat, and Latex2e\n",
		"app/node_modules/left-pad/package.json": `{"name":"left-pad","version":"1.3.0","license":"(MIT OR wtfpl)","homepage":"https://example.com/left-pad","author":"Azer <a@example.com> (http://azer.bike)"}`,
		"app/node_modules/odd/package.json":      `{"name":"odd <é>","version":"1 2","license":"SEE LICENSE IN <LICENSE>"}`,
		"usr/lib/sysimage/rpm/rpmdb.sqlite":      gunzip(t, "rpmdb/testdata/sqlite.gz"),
		"py/a.dist-info/METADATA":                "Name: a\nVersion: 1\nLicense: MIT License\n",
		"lib/x-1.0.jar":                          jar(t, "META-INF/MANIFEST.MF", "Implementation-Vendor: ACME\n"),
	}
}

// TestSPDX is the whole document of a small image.
func TestSPDX(t *testing.T) {
	t.Parallel()
	data, err := scan(t, everything(t)).SPDX(document())
	if err != nil {
		t.Fatal(err)
	}
	check(t, data)
	var got bytes.Buffer
	if err := json.Indent(&got, data, "", " "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	golden := filepath.Join("testdata", "sbom.spdx.json")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// check holds a document against the schema, and against what the schema cannot say.
func check(t *testing.T, data []byte) {
	t.Helper()
	schematest.Validate(t, filepath.Join("testdata", "spdx-2.3.schema.json"), data)
	var doc struct {
		SPDXID            string
		DocumentNamespace string
		Packages, Files   []struct {
			SPDXID           string
			LicenseDeclared  string
			LicenseConcluded string
		}
		HasExtractedLicensingInfos []struct{ LicenseID string }
		Relationships              []struct{ SpdxElementID, RelatedSpdxElement string }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	ids := map[string]bool{doc.SPDXID: true}
	valid := regexp.MustCompile(`^SPDXRef-[A-Za-z0-9.-]+$`)
	refs := map[string]bool{}
	for _, e := range append(doc.Packages, doc.Files...) {
		if ids[e.SPDXID] || !valid.MatchString(e.SPDXID) {
			t.Errorf("SPDXID %q is there twice or not valid", e.SPDXID)
		}
		ids[e.SPDXID] = true
		for _, w := range regexp.MustCompile(`LicenseRef-[A-Za-z0-9.-]+`).FindAllString(e.LicenseDeclared, -1) {
			refs[w] = true
		}
	}
	for _, r := range doc.Relationships {
		if !ids[r.SpdxElementID] || !ids[r.RelatedSpdxElement] {
			t.Errorf("relationship of %q and %q, one of which is not there", r.SpdxElementID, r.RelatedSpdxElement)
		}
	}
	for _, l := range doc.HasExtractedLicensingInfos {
		delete(refs, l.LicenseID)
	}
	if len(refs) > 0 {
		t.Errorf("licences without a text: %v", refs)
	}
	if !strings.HasPrefix(doc.DocumentNamespace, "https://") || strings.Contains(doc.DocumentNamespace, "#") {
		t.Errorf("namespace %q", doc.DocumentNamespace)
	}
}

// TestSPDXIsStable writes the same image twice; only another time makes another document.
func TestSPDXIsStable(t *testing.T) {
	t.Parallel()
	var docs [3][]byte
	for i := range docs {
		d := document()
		if i == 2 {
			d.Created = d.Created.Add(time.Hour)
		}
		var err error
		if docs[i], err = scan(t, everything(t)).SPDX(d); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(docs[0], docs[1]) {
		t.Error("the same image gave two documents")
	}
	if bytes.Equal(docs[0], docs[2]) {
		t.Error("two times gave the same document")
	}
}

func TestSPDXOfDebian(t *testing.T) {
	t.Parallel()
	data, err := scan(t, debianTree(t)).SPDX(document())
	if err != nil {
		t.Fatal(err)
	}
	check(t, data)
}

func TestSPDXOfNothing(t *testing.T) {
	t.Parallel()
	data, err := scan(t, memory{"a": "b"}).SPDX(sbom.Document{Name: "sbom-context", Created: time.Unix(0, 0), Tool: "hako-test"})
	if err != nil {
		t.Fatal(err)
	}
	check(t, data)
}
