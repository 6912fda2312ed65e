package dropin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/test/lab"
)

const (
	user     = "robot"
	password = "sesame-1a2b3c" // must appear nowhere
)

// fixture is what the tests share: a registry that wants a password, with a base image, and the images in Docker.
type fixture struct {
	registry *lab.Registry
	// dir is readable by every user, and gone at the end.
	dir string
	// base is the base image; images are Docker's names of ours.
	base   string
	images map[string]string
	// foreign is Docker's name of an image that is not ours.
	foreign string
}

// newFixture makes everything; it skips the test if something is missing, or fails it in CI.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	if err := missing(t.Context()); err != nil {
		if os.Getenv("HAKO_CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "hako-dropin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := &fixture{dir: dir}
	f.images = must[map[string]string](t)(lab.LoadImages(t.Context(), f.newDir(t), "executor", "slim", "nonroot", "warmer", "debug"))
	f.registry = must[*lab.Registry](t)(lab.StartRegistry(t.Context(), f.newDir(t), user, password))
	t.Cleanup(func() {
		if err := f.registry.Close(); err != nil {
			t.Error(err)
		}
	})
	f.base = f.registry.Addr + "/library/busybox:1"
	if err := f.pushBase(t); err != nil {
		t.Fatal(err)
	}
	return f
}

// missing says what the tests need and this machine lacks.
func missing(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("needs root: directories of other users")
	}
	for tool, pkg := range map[string]string{"docker-registry": "docker-registry", "busybox": "busybox-static", "make": "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s (apt-get install %s): %w", tool, pkg, err)
		}
	}
	return lab.FindDocker(ctx)
}

// pushBase pushes a small base image with the registry's password.
func (f *fixture) pushBase(t *testing.T) error {
	t.Helper()
	open := must[*lab.Registry](t)(lab.StartRegistry(t.Context(), f.newDir(t), "", ""))
	defer open.Close() //nolint:errcheck // it is thrown away
	from := open.Addr + "/library/busybox:1"
	if err := lab.PushBusybox(t.Context(), from); err != nil {
		return err
	}
	must[string](t)(lab.Must(t.Context(), "docker", "pull", "-q", from))
	f.foreign = strings.TrimSpace(must[string](t)(lab.Must(t.Context(), "docker", "inspect", "--format", "{{.Id}}", from)))
	t.Cleanup(func() {
		if err := lab.ForgetImages(context.WithoutCancel(t.Context()), open.Addr); err != nil {
			t.Error(err)
		}
	})
	img, err := remote.Image(must[name.Reference](t)(name.ParseReference(from)))
	if err != nil {
		return err
	}
	return remote.Write(must[name.Reference](t)(name.ParseReference(f.base)), img, f.auth())
}

func (f *fixture) auth() remote.Option {
	return remote.WithAuth(&authn.Basic{Username: user, Password: password})
}

// image reads an image back.
func (f *fixture) image(t *testing.T, ref string) v1.Image {
	t.Helper()
	return must[v1.Image](t)(remote.Image(must[name.Reference](t)(name.ParseReference(ref)), f.auth()))
}

// digest is that of an image in the registry.
func (f *fixture) digest(t *testing.T, ref string) string {
	t.Helper()
	return must[v1.Hash](t)(f.image(t, ref).Digest()).String()
}

// dockerConfig is the file config.json of somebody who logged in.
func (f *fixture) dockerConfig() string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, f.registry.Addr, auth)
}

// newDir makes a directory below the fixture's that everybody may read.
func (f *fixture) newDir(t *testing.T) string {
	t.Helper()
	return must[string](t)(lab.NewDir(f.dir))
}

// write makes a directory of files that everybody may read and, if their names end in .sh, run.
func (f *fixture) write(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := f.newDir(t)
	for file, text := range content {
		p := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(file, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// context is a directory with a Dockerfile that needs the base image, a step and a file.
func (f *fixture) context(t *testing.T) string {
	t.Helper()
	return f.write(t, map[string]string{"Dockerfile": f.dockerfile(), "hello.txt": "hello\n"})
}

func (f *fixture) dockerfile() string {
	return fmt.Sprintf("FROM %s\nCOPY hello.txt /srv/\nRUN cat /srv/hello.txt > /srv/copy && id -u >> /srv/copy\n", f.base)
}

// must is for set-up that every check after it needs.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
