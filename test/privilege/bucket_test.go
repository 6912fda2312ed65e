package privilege

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
	"hako/test/lab"
)

// testBucket builds from an archive in S3, with the cache in the same bucket, and wants the tree of the same files in a
// directory each time.
func testBucket(t *testing.T, f *fixture) {
	content := map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nCOPY . /src/\nRUN cat /src/a > /out\n", must[string](t)(f.busybox())), ".dockerignore": "Dockerfile\n", "a": "a\n", "b": "b\n",
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, text := range content {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	env := buckettest.Environment()
	for k, v := range env {
		t.Setenv(k, v)
	}
	s := buckettest.StartS3(t)
	b, err := bucket.Open(t.Context(), bucket.Options{Getenv: s.Getenv}, must[bucket.Place](t)(bucket.Parse(s.Place)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Write(t.Context(), "context.tar", bytes.NewReader(archive.Bytes()), int64(archive.Len())); err != nil {
		t.Fatal(err)
	}
	var variables []string
	for _, all := range []map[string]string{env, s.Env} {
		for k, v := range all {
			variables = append(variables, "-e", k+"="+v)
		}
	}
	local := f.registry.Addr + "/bucket:local"
	f.mustBuild(t, volumeLevel(), job{context: f.writeContext(t, content), destination: local})
	want := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), local))
	empty := f.newDir(t)
	for i, l := range append(restrictedLevels(), defaultLevel()) {
		t.Run(l.name, func(t *testing.T) {
			ref := f.registry.Addr + "/bucket:" + l.name
			out := f.mustBuild(t, l, job{
				context: empty, destination: ref, docker: variables,
				args: []string{"--context", s.Place + "/context.tar", "--cache", "--cache-repo", s.Place + "/cache"},
			})
			if strings.Contains(out.Output, buckettest.SecretKey) {
				t.Error("the key is in the log")
			}
			for _, d := range lab.Compare(want, must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref)), nil) {
				t.Error(d)
			}
			if i > 0 && !strings.Contains(strings.ToLower(out.Output), "cache") {
				t.Errorf("nothing came from the cache:\n%s", out.Output)
			}
		})
	}
}
