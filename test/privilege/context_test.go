package privilege

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/lab"
)

// testContexts builds the same files as a directory, an archive, from a server with a certificate of its own and from
// standard input, where little or nothing can be written: each time, the image is the same.
func testContexts(t *testing.T, f *fixture) {
	dir := f.writeContext(t, map[string]string{
		"src/Dockerfile": "FROM scratch\nCOPY . /\n", "src/.dockerignore": "*.secret\n", "src/a/b.sh": "#!/bin/sh\n", "src/x.secret": "no\n",
	})
	archive := filepath.Join(dir, "context.tar.gz")
	must[string](t)(lab.Must(t.Context(), "tar", "-C", filepath.Join(dir, "src"), "-czf", archive, "."))
	server := httptest.NewTLSServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o644); err != nil { //nolint:gosec // everybody may read it
		t.Fatal(err)
	}
	digest := func(ref string) v1.Hash {
		img := must[v1.Image](t)(f.registry.Image(t.Context(), ref))
		return must[v1.Hash](t)(img.Digest())
	}
	same := []string{"--source-date-epoch=1000000000", "--rewrite-timestamp"}
	for _, l := range append(restrictedLevels(), defaultLevel()) {
		t.Run(l.name, func(t *testing.T) {
			want := f.registry.Addr + "/context:" + l.name
			f.mustBuild(t, l, job{context: dir, destination: want, args: append(same, "--context=dir:///workspace/src")})
			for name, place := range map[string]string{"tar": "tar:///workspace/context.tar.gz", "https": server.URL + "/context.tar.gz"} {
				ref := want + "-" + name
				f.mustBuild(t, l, job{context: dir, destination: ref, args: append(same, "--context="+place), docker: []string{"-e", "SSL_CERT_FILE=/workspace/ca.pem"}})
				if got := digest(ref); got != digest(want) {
					t.Errorf("%s: %s, want %s", name, got, digest(want))
				}
			}
			ref := want + "-stdin"
			args := append([]string{"docker", "run", "--rm", "-i", "--network", "host"}, l.docker...)
			args = append(args, must[string](t)(f.executor()), "--context=tar://stdin", "--destination", ref, "--insecure")
			r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: append(args, same...), Stdin: bytes.NewReader(must[[]byte](t)(os.ReadFile(archive)))}))
			if r.ExitCode != 0 || digest(ref) != digest(want) {
				t.Errorf("standard input: exit code %d\n%s", r.ExitCode, tail(r.Output))
			}
		})
	}
}
