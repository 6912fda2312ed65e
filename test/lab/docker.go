package lab

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// FindDocker says what is missing for running containers: nil if a Docker engine answers.
func FindDocker(ctx context.Context) error {
	if _, err := exec.LookPath("docker"); err != nil {
		return fmt.Errorf("find Docker: %w (apt-get install docker.io)", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if _, err := Must(ctx, "docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		return fmt.Errorf("reach the Docker engine: %w", err)
	}
	return nil
}

// Container is a container started by StartContainer.
type Container struct {
	Name string
	// PID is its first process as the machine sees it; zero if it has ended already.
	PID int
}

// StartContainer starts a container in the background with flags, image and arguments as docker run takes them.
// Remove it afterwards.
func StartContainer(ctx context.Context, args ...string) (*Container, error) {
	c := &Container{Name: "hako-test-" + strings.ToLower(rand.Text()[:12])}
	if _, err := Must(ctx, append([]string{"docker", "run", "-d", "--name", c.Name}, args...)...); err != nil {
		return nil, err
	}
	out, err := Must(ctx, "docker", "inspect", "--format", "{{.State.Pid}}", c.Name)
	if err != nil {
		return nil, err
	}
	c.PID, err = strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return nil, fmt.Errorf("read a container's process id: %w", err)
	}
	return c, nil
}

// Wait waits for the end of the container and returns its exit code and all of its output.
func (c *Container) Wait(ctx context.Context) (Result, error) {
	start := time.Now()
	out, err := Must(ctx, "docker", "wait", c.Name)
	if err != nil {
		return Result{}, err
	}
	code, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		return Result{}, fmt.Errorf("read a container's exit code: %w", err)
	}
	logs, err := c.Logs(ctx)
	return Result{ExitCode: code, Output: logs, Wall: time.Since(start)}, err
}

// Logs is what the container has written so far, standard output and error together.
func (c *Container) Logs(ctx context.Context) (string, error) {
	r, err := Run(ctx, Command{Args: []string{"docker", "logs", c.Name}})
	return r.Output, err
}

// Writes lists what the container changed in its own root file system: path by path, "A", "C" or "D" first.
func (c *Container) Writes(ctx context.Context) ([]string, error) {
	out, err := Must(ctx, "docker", "diff", c.Name)
	if err != nil {
		return nil, err
	}
	return strings.FieldsFunc(out, func(r rune) bool { return r == '\n' }), nil
}

// Stop asks the container to end with SIGTERM and kills it after grace.
func (c *Container) Stop(ctx context.Context, grace time.Duration) error {
	_, err := Must(ctx, "docker", "stop", "-t", strconv.Itoa(int(grace.Seconds())), c.Name)
	return err
}

// Remove removes the container, running or not, and its anonymous volumes.
func (c *Container) Remove(ctx context.Context) error {
	_, err := Must(ctx, "docker", "rm", "-f", "-v", c.Name)
	return err
}

// DockerBuild builds the context dir with the Docker engine's own builder and pushes the image to ref;
// the engine keeps nothing but the base.
func DockerBuild(ctx context.Context, dir, ref string) (Result, error) {
	args := []string{"docker", "build", "--network", "host", "--no-cache", "--force-rm", "-t", ref}
	args = append(append(args, ProxyArgs(os.Getenv)...), dir)
	r, err := Run(ctx, Command{Args: args, Env: append(os.Environ(), "DOCKER_BUILDKIT=0")})
	if err != nil || r.ExitCode != 0 {
		return r, err
	}
	if _, err := Must(ctx, "docker", "push", ref); err != nil {
		return r, err
	}
	_, err = Must(ctx, "docker", "rmi", "-f", ref)
	return r, err
}

// ForgetImages removes from the Docker engine all images of the registry at addr.
func ForgetImages(ctx context.Context, addr string) error {
	out, err := Must(ctx, "docker", "images", "--format", "{{.Repository}}:{{.Tag}}")
	if err != nil {
		return err
	}
	for _, ref := range strings.Fields(out) {
		if !strings.HasPrefix(ref, addr+"/") {
			continue
		}
		if _, err := Must(ctx, "docker", "rmi", "-f", ref); err != nil {
			return err
		}
	}
	return nil
}

// ProxyArgs are the build arguments that pass this machine's proxies on to RUN steps, as both builders take them.
func ProxyArgs(getenv func(string) string) []string {
	var args []string
	for _, name := range []string{"http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		if v := getenv(name); v != "" {
			args = append(args, "--build-arg", name+"="+v)
		}
	}
	return args
}

// LoadExecutor makes the executor image as a release does and hands it to Docker; it returns the image's ID there.
func LoadExecutor(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "hako-images-")
	if err != nil {
		return "", fmt.Errorf("make the executor image: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // Docker has the image
	images, err := LoadImages(ctx, dir, "executor")
	return images["executor"], err
}

// LoadImages makes images as a release does, in dir, and hands them to Docker. It returns Docker's IDs of them, which stay when
// another test loads images of the same name, by the names that the Makefile has for them: executor, slim, nonroot, warmer, debug.
func LoadImages(ctx context.Context, dir string, names ...string) (map[string]string, error) {
	if err := MakeImages(ctx, dir, names...); err != nil {
		return nil, err
	}
	loaded := map[string]string{}
	for _, n := range names {
		out, err := Must(ctx, "docker", "load", "-i", filepath.Join(dir, n+".tar"))
		if err != nil {
			return nil, fmt.Errorf("load the image %s: %w", n, err)
		}
		m := regexp.MustCompile(`Loaded image(?: ID)?: (\S+)`).FindStringSubmatch(out)
		if m == nil {
			return nil, fmt.Errorf("load the image %s: docker said %q", n, out)
		}
		id, err := Must(ctx, "docker", "inspect", "--format", "{{.Id}}", m[1])
		if err != nil {
			return nil, fmt.Errorf("load the image %s: %w", n, err)
		}
		loaded[n] = strings.TrimSpace(id)
	}
	return loaded, nil
}

// MakeImages makes images as a release does, as archives NAME.tar in dir, with the program that made them as dir/hako.
func MakeImages(ctx context.Context, dir string, names ...string) error {
	root, err := ModuleRoot()
	if err != nil {
		return err
	}
	args := []string{"make", "-s", "-C", root, "OUT=" + dir, "REPOSITORY=hako-test"}
	for _, n := range names {
		args = append(args, "image-"+n)
	}
	if _, err := Must(ctx, args...); err != nil {
		return fmt.Errorf("make the images: %w", err)
	}
	return nil
}
