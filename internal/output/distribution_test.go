package output_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/output"
	"hako/internal/registry"
)

// startDistribution runs a CNCF distribution registry that wants u:p4ss, and returns host and port.
func startDistribution(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("needs docker-registry (CNCF distribution)")
	}
	dir := t.TempDir()
	config := fmt.Sprintf(`version: 0.1
storage: {filesystem: {rootdirectory: %s/data}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
auth: {htpasswd: {realm: test, path: %s/users}}
`, dir, dir)
	for name, text := range map[string]string{
		"config.yml": config,
		"users":      "u:$2y$05$abcdefghijklmnopqrstuuAhFzwZwHy5Yo9kuGNrV3HJuDLDVWzC2\n", // p4ss
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "serve", filepath.Join(dir, "config.yml"))
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address := make(chan string, 1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		find := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if m := find.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
			}
		}
		close(address)
	}()
	t.Cleanup(func() {
		stop()
		<-drained
		_ = cmd.Wait() // it was killed
	})
	host := <-address
	if host == "" {
		t.Fatal("the registry did not start")
	}
	return host
}

func withPassword(t *testing.T, host, password string) *registry.Client {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`{"auths":{%q:{"username":"u","password":%q}}}`, host, password)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return must[*registry.Client](t)(registry.New(registry.Options{RetryDelay: time.Millisecond, DockerConfigDirs: []string{dir}}))
}

// TestDistribution pushes to, mounts in and reads from the registry that most people run.
func TestDistribution(t *testing.T) {
	t.Parallel()
	host := startDistribution(t)
	client := withPassword(t, host, "p4ss")
	r := twoPlatforms(t)
	out := must[*output.Output](t)(output.New(client, output.Options{Destinations: []string{host + "/team/app:1", host + "/other:2"}}, nil))
	defer out.Close()
	if err := out.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Images[0].Layers {
		out.Upload(l)
	}
	if err := out.Write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"team/app", "other"} {
		repo := client.Repository(must[name.Repository](t)(name.NewRepository(host+"/"+path, name.WeakValidation)), registry.Pull)
		m, err := repo.Manifest(t.Context(), map[string]string{"team/app": "1", "other": "2"}[path])
		if err != nil {
			t.Fatal(err)
		}
		want := &registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Digest: r.Index.Digest, Data: r.IndexData}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Error(diff)
		}
		for _, im := range r.Images {
			if _, err := repo.Config(t.Context(), im.Config); err != nil {
				t.Error(err)
			}
			for _, l := range im.Layers {
				rc, err := repo.Blob(t.Context(), l.Descriptor)
				if err != nil {
					t.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, rc); err != nil || n != l.Size {
					t.Error(n, err)
				}
				rc.Close()
			}
		}
	}
}

func TestDistributionRefusesBadPassword(t *testing.T) {
	t.Parallel()
	host := startDistribution(t)
	out := must[*output.Output](t)(output.New(withPassword(t, host, "wrong"), output.Options{Destinations: []string{host + "/a:1"}}, nil))
	defer out.Close()
	err := out.Check(t.Context())
	var d *diag.Error
	if !errors.As(err, &d) {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(d.Error(), host, "HOST")
	want := "check that HOST/a can be pushed to: POST http://HOST/v2/a/blobs/uploads/: 401 Unauthorized: UNAUTHORIZED: authentication required"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !strings.HasPrefix(d.Hint, "Check that the credentials from ") {
		t.Errorf("hint %q", d.Hint)
	}
}
