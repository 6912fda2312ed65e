package contextsource_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/contextsource"
)

func promisedArchive(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&tar.Header{Name: "Dockerfile", Size: 12, Mode: 0o644}), writeAll(w, "FROM scratch"), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeAll(w *tar.Writer, text string) error {
	_, err := w.Write([]byte(text))
	return err
}

// What was promised of standard input is held to, to the last byte, even behind the archive's own end; what comes after is not read.
func TestPromised(t *testing.T) {
	t.Parallel()
	whole := promisedArchive(t)
	d, other := digest.FromBytes(whole), digest.FromString("x")
	for name, test := range map[string]struct {
		place, input, says string
		again              bool
	}{
		"as promised":       {place: contextsource.StandardInput(d, int64(len(whole))), input: string(whole)},
		"digest only":       {place: "tar://stdin#sha256=" + d.Encoded(), input: string(whole)},
		"more after it":     {place: contextsource.StandardInput(d, int64(len(whole))), input: string(whole) + "more"},
		"nothing":           {place: contextsource.StandardInput(d, int64(len(whole))), says: "read build context standard input: it ended after 0 of 2048 bytes", again: true},
		"cut in the middle": {place: contextsource.StandardInput(d, int64(len(whole))), input: string(whole[:700]), says: "it ended after 700 of 2048 bytes", again: true},
		"cut in a header":   {place: contextsource.StandardInput(d, int64(len(whole))), input: string(whole[:100]), says: "it ended after 100 of 2048 bytes", again: true},
		"cut at its end":    {place: contextsource.StandardInput(d, int64(len(whole))), input: string(whole[:1024]), says: "it ended after 1024 of 2048 bytes", again: true},
		"cut, no size":      {place: "tar://stdin#sha256=" + d.Encoded(), input: string(whole[:1024]), says: "its 1024 bytes are sha256:", again: true},
		"something else":    {place: contextsource.StandardInput(other, int64(len(whole))), input: string(whole), says: "and not " + other.String(), again: true},
		"no digest":         {place: "tar://stdin#size=3", says: "invalid checksum digest"},
		"no number":         {place: "tar://stdin#sha256=" + d.Encoded() + "&size=-1", says: `size "-1" is no number of bytes`},
		"no such name":      {place: "tar://stdin#sha256=" + d.Encoded() + "&sise=1", says: "nothing is called sise"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := contextsource.Open(t.Context(), contextsource.Options{
				Cwd: "/", Now: time.Unix(0, 0), File: func(name string) (*os.File, error) { return os.CreateTemp(t.TempDir(), name) },
			}, contextsource.Request{Place: test.place, Title: "build context", Flag: "--context", Input: strings.NewReader(test.input)})
			if err == nil {
				defer s.Close() //nolint:errcheck // nothing was written
			}
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(fmt.Sprint(err), test.says)) {
				t.Errorf("%v, want %q", err, test.says)
			}
			if again := (*contextsource.IncompleteError)(nil); errors.As(err, &again) != test.again {
				t.Errorf("%v may be sent again: %v, want %v", err, !test.again, test.again)
			}
			if err == nil && s.Digest != d.String() {
				t.Errorf("%s, want %s", s.Digest, d)
			}
		})
	}
}
