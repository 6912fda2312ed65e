package sbom_test

import (
	"os"
	"testing"

	"hako/internal/sbom"
)

// FuzzScan gives every kind of file that is read any content: no panic, and always a document.
func FuzzScan(f *testing.F) {
	names := []string{
		"var/lib/dpkg/status", "usr/share/doc/a/copyright", "lib/apk/db/installed", "a/node_modules/b/package.json", "package-lock.json",
		"a.dist-info/METADATA", "a-1.jar", "etc/os-release",
	}
	contents := []string{
		"Package: a\nVersion: 1\n", "Format: x\nLicense: GPL-2+\n", "P:a\nV:1\n\n", `{"name":"b","version":"1","license":["a",{"type":"b"}]}`,
		`{"packages":{"node_modules/a":{"version":"1","integrity":"sha1-AAAA"}}}`, "Name: a\nVersion: 1\n", jar(f, "META-INF/MANIFEST.MF", "A: b\n"), "ID=\"a\"\nVERSION_ID='1'\n",
	}
	for i, c := range contents {
		f.Add(byte(i), []byte(c))
	}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		m := memory{names[int(kind)%len(names)]: string(data)}
		if kind%8 == 1 {
			m["var/lib/dpkg/status"] = contents[0]
		}
		inv, err := sbom.Scan(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := inv.SPDX(document())
		if err != nil {
			t.Fatal(err)
		}
		check(t, doc)
	})
}

// FuzzProgram gives the reader of programs any bytes after the head of one.
func FuzzProgram(f *testing.F) {
	self, err := os.Executable()
	if err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:96<<10])
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := sbom.Scan(t.Context(), memory{"a": string(data)}); err != nil {
			t.Fatal(err)
		}
	})
}
