package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"hako/test/lab"
)

// hako is our binary as root on the machine, with an empty work directory on disk.
type hako struct {
	group         *cgroup
	engine, label string
	bin, work     string
	cache         string // a directory of base images, or empty
	more          []string
}

// openHako is hako with the engine that it chooses itself.
func (b *bench) openHako(ctx context.Context) (builder, error) {
	return b.openEngine(ctx, "hako", "auto")
}

// openSentry is hako as root with the user-space kernel.
func (b *bench) openSentry(ctx context.Context) (builder, error) {
	return b.openEngine(ctx, "hako-sentry", "sentry")
}

func (b *bench) openEngine(ctx context.Context, label, engine string) (builder, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return nil, err
	}
	h := &hako{label: label, engine: engine, bin: filepath.Join(b.dir, "hako"), work: filepath.Join(b.dir, label+"-work")}
	if err := os.Mkdir(h.work, 0o755); err != nil {
		return nil, fmt.Errorf("make a work directory: %w", err)
	}
	build := lab.Command{Args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-o", h.bin, "./cmd/hako"}, Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0")}
	r, err := lab.Run(ctx, build)
	if err == nil && r.ExitCode != 0 {
		err = errors.New(strings.TrimSpace(r.Output))
	}
	if err != nil {
		return nil, err
	}
	h.group, err = b.group(h.name())
	return h, err
}

func (h *hako) name() string { return h.label }

func (h *hako) describe(ctx context.Context) (string, error) {
	begin := time.Now()
	v, err := firstLine(ctx, h.bin, "version")
	return fmt.Sprintf("%s, --sandbox=%s, root on the machine; starting the process alone takes %.2f s", v, h.engine, time.Since(begin).Seconds()), err
}

// forget removes the layers that builds of one work directory share.
func (h *hako) forget(context.Context) error {
	return os.RemoveAll(filepath.Join(h.work, "hako-layers"))
}

func (h *hako) build(ctx context.Context, dir, ref string) (usage, error) {
	args := []string{h.bin, "build", "--context", "dir://" + dir, "--destination", ref, "--kaniko-dir", h.work, "--sandbox", h.engine, "--insecure", "--insecure-pull"}
	args = append(args, h.more...)
	if h.cache != "" {
		args = append(args, "--cache-dir", h.cache)
	}
	if h.cache != "" && changes(dir) {
		args = append(args, "--cache", "--cache-repo=oci:"+h.cache+"/steps")
	}
	return h.group.measure(ctx, func(ctx context.Context) error { return runIn(ctx, h.group, args...) })
}

// container is a builder's image in docker run. Its wall time has the start of the container in it.
type container struct {
	group         *cgroup
	label, image  string
	what          string
	privileges    []string
	version, args []string // of the program
	cache         string   // its volume of base images, or empty
}

// openRestricted is the executor image as uid 1000 without capabilities, on a read-only root file system, with a volume.
func (b *bench) openRestricted(ctx context.Context) (builder, error) {
	volume := filepath.Join(b.dir, "volume")
	if err := os.Mkdir(volume, 0o755); err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	if err := os.Chown(volume, 1000, 1000); err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	return b.openExecutor(ctx, &container{
		label: "hako-restricted", what: "uid 1000 in a restricted container with a volume",
		privileges: []string{"--user", "1000:1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only", "-v", volume + ":/tmp"},
	})
}

// openDefault is the executor image as docker run starts it: root, with the engine's default profile.
func (b *bench) openDefault(ctx context.Context) (builder, error) {
	return b.openExecutor(ctx, &container{label: "hako-default", what: "root in a default container"})
}

func (b *bench) openExecutor(ctx context.Context, c *container) (builder, error) {
	if err := lab.FindDocker(ctx); err != nil {
		return nil, err
	}
	var err error
	if c.image, err = lab.LoadExecutor(ctx); err != nil {
		return nil, err
	}
	c.args = []string{"--insecure", "--insecure-pull"}
	c.version = []string{"version"}
	c.group, err = b.group(c.name())
	return c, err
}

func (c *container) name() string { return c.label }

func (c *container) run(args ...string) []string {
	run := append([]string{"docker", "run", "--rm", "--network", "host", "--cgroup-parent", c.group.path}, c.privileges...)
	return append(run, args...)
}

func (c *container) describe(ctx context.Context) (string, error) {
	begin := time.Now()
	v, err := firstLine(ctx, c.run(append([]string{"--entrypoint", "/kaniko/executor", c.image}, c.version...)...)...)
	return fmt.Sprintf("%s, %s; starting the container alone takes %.2f s", v, c.what, time.Since(begin).Seconds()), err
}

func (c *container) forget(context.Context) error { return nil }

func (c *container) build(ctx context.Context, dir, ref string) (usage, error) {
	args := c.run(append([]string{"-v", dir + ":/workspace:ro", c.image, "--context", "dir:///workspace", "--destination", ref}, c.args...)...)
	if c.cache != "" && changes(dir) {
		args = append(args, "--cache", "--cache-repo=oci:"+c.cache+"/steps")
	}
	return c.group.measure(ctx, func(ctx context.Context) error {
		_, err := lab.Must(ctx, args...)
		return err
	})
}

// openKaniko is kaniko's executor in a container of its own, as its users run it.
func (b *bench) openKaniko(ctx context.Context) (builder, error) {
	return b.openKanikoWith(ctx, "kaniko", "--insecure", "--insecure-pull")
}

// openKanikoFast is kaniko with the options that its documentation recommends for speed and memory.
func (b *bench) openKanikoFast(ctx context.Context) (builder, error) {
	return b.openKanikoWith(ctx, "kaniko-fast", "--insecure", "--insecure-pull", "--snapshot-mode=redo", "--use-new-run", "--compressed-caching=false")
}

func (b *bench) openKanikoWith(ctx context.Context, label string, args ...string) (builder, error) {
	if b.kaniko == "" {
		return nil, errors.New("no -kaniko")
	}
	if err := lab.FindDocker(ctx); err != nil {
		return nil, err
	}
	c := &container{label: label, what: "in a default container, " + strings.Join(args, " "), image: "hako-bench/kaniko", args: args, version: []string{"version"}}
	var err error
	if c.group, err = b.group(c.name()); err != nil {
		return nil, err
	}
	const dockerfile = "FROM scratch\nCOPY executor /kaniko/executor\nENV PATH=/usr/local/bin:/kaniko:/busybox SSL_CERT_DIR=/kaniko/ssl/certs DOCKER_CONFIG=/kaniko/.docker/\nWORKDIR /workspace\nENTRYPOINT [\"/kaniko/executor\"]\n"
	dir := filepath.Join(b.dir, label)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make kaniko's image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(dockerfile), 0o644); err != nil {
		return nil, fmt.Errorf("make kaniko's image: %w", err)
	}
	if _, err := lab.Must(ctx, "cp", b.kaniko, filepath.Join(dir, "executor")); err != nil {
		return nil, err
	}
	_, err = lab.Must(ctx, "env", "DOCKER_BUILDKIT=0", "docker", "build", "-t", c.image, dir)
	return c, err
}
