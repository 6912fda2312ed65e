package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hako/test/lab"
)

// builder builds contexts of the machine and pushes the result to a registry on loopback.
type builder interface {
	name() string
	version(ctx context.Context) (string, error)
	// forget drops everything kept from earlier builds, bases included, so that each build is cold.
	forget(ctx context.Context) error
	// build builds dir and pushes ref; it returns what that took.
	build(ctx context.Context, dir, ref string) (usage, error)
}

// findBuilders starts the builders that this machine has.
func (b *bench) findBuilders(ctx context.Context) error {
	for _, k := range []struct {
		name string
		open func(context.Context) (builder, error)
	}{
		{"hako", b.openHako}, {"hako-restricted", b.openRestricted}, {"docker", b.openDocker}, {"buildah", b.openBuildah}, {"buildkit", b.openBuildkit},
	} {
		if !chosen(b.options.builders, k.name) {
			continue
		}
		bu, err := k.open(ctx)
		if err != nil {
			b.absent = append(b.absent, fmt.Sprintf("%s: %v", k.name, err))
			continue
		}
		b.builders = append(b.builders, bu)
	}
	if len(b.builders) == 0 {
		return fmt.Errorf("no builder can be measured: %s", strings.Join(b.absent, "; "))
	}
	return nil
}

// group makes the control group of a builder, and removes it at the end.
func (b *bench) group(name string) (*cgroup, error) {
	g, err := newCgroup("/hako-bench/" + name)
	if err == nil {
		b.closed = append(b.closed, g.remove)
	}
	return g, err
}

// runIn runs a program in the group and fails on a bad exit code.
func runIn(ctx context.Context, g *cgroup, args ...string) error {
	_, err := lab.Must(ctx, append([]string{"sh", "-c", g.enter() + `exec "$@"`, "sh"}, args...)...)
	return err
}

// daemon starts a program in the group and ends it when the benchmark ends; ready says when it answers.
func (b *bench) daemon(ctx context.Context, g *cgroup, ready []string, args ...string) error {
	log, err := os.Create(filepath.Join(b.dir, filepath.Base(args[0])+".log"))
	if err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	cmd := exec.Command("sh", append([]string{"-c", g.enter() + `exec "$@"`, "sh"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from the terminal is ours to pass on
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	b.closed = append(b.closed, func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return fmt.Errorf("end %s: %w", args[0], err)
		}
		_ = cmd.Wait() // it was told to end
		return nil
	})
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = lab.Poll(ctx, 200*time.Millisecond, func() bool { _, err := lab.Must(ctx, ready...); return err == nil })
	if err != nil {
		text, _ := os.ReadFile(log.Name()) // only makes the message better
		return fmt.Errorf("wait for %s: %w\n%s", args[0], err, text)
	}
	return nil
}

// hako is our binary as root on the machine, with an empty work directory on disk.
type hako struct {
	group     *cgroup
	bin, work string
}

func (b *bench) openHako(ctx context.Context) (builder, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return nil, err
	}
	h := &hako{bin: filepath.Join(b.dir, "hako"), work: filepath.Join(b.dir, "hako-work")}
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

func (h *hako) name() string { return "hako" }

func (h *hako) version(ctx context.Context) (string, error) {
	begin := time.Now()
	v, err := firstLine(ctx, h.bin, "version")
	return fmt.Sprintf("%s, root on the machine; starting the process alone takes %.2f s", v, time.Since(begin).Seconds()), err
}

func (h *hako) forget(context.Context) error { return nil }

func (h *hako) build(ctx context.Context, dir, ref string) (usage, error) {
	return h.group.measure(ctx, func(ctx context.Context) error {
		return runIn(ctx, h.group, h.bin, "build", "--context", "dir://"+dir, "--destination", ref, "--kaniko-dir", h.work, "--insecure", "--insecure-pull")
	})
}

// restricted is the executor image as uid 1000 without capabilities, on a read-only root file system, with a volume.
// Its wall time has the start of the container in it.
type restricted struct {
	group         *cgroup
	image, volume string
}

func (b *bench) openRestricted(ctx context.Context) (builder, error) {
	if err := lab.FindDocker(ctx); err != nil {
		return nil, err
	}
	image, err := lab.LoadExecutor(ctx)
	if err != nil {
		return nil, err
	}
	r := &restricted{image: image, volume: filepath.Join(b.dir, "volume")}
	if err := os.Mkdir(r.volume, 0o755); err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	if err := os.Chown(r.volume, 1000, 1000); err != nil {
		return nil, fmt.Errorf("make a volume: %w", err)
	}
	r.group, err = b.group(r.name())
	return r, err
}

func (r *restricted) name() string { return "hako-restricted" }

func (r *restricted) run(args ...string) []string {
	return append([]string{"docker", "run", "--rm", "--network", "host", "--cgroup-parent", r.group.path, "--user", "1000:1000", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", "--read-only", "-v", r.volume + ":/tmp"}, args...)
}

func (r *restricted) version(ctx context.Context) (string, error) {
	begin := time.Now()
	v, err := firstLine(ctx, r.run("--entrypoint", "/kaniko/executor", r.image, "version")...)
	return fmt.Sprintf("%s, uid 1000 in a restricted container with a volume; starting the container alone takes %.2f s", v, time.Since(begin).Seconds()), err
}

func (r *restricted) forget(context.Context) error { return nil }

func (r *restricted) build(ctx context.Context, dir, ref string) (usage, error) {
	args := r.run("-v", dir+":/workspace:ro", r.image, "--context", "dir:///workspace", "--destination", ref, "--insecure", "--insecure-pull")
	return r.group.measure(ctx, func(ctx context.Context) error {
		_, err := lab.Must(ctx, args...)
		return err
	})
}

// docker is an engine of our own, so that all of its work is in the group.
type docker struct {
	group *cgroup
	host  string
}

func (b *bench) openDocker(ctx context.Context) (builder, error) {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, err
	}
	d := &docker{host: "unix://" + filepath.Join(b.dir, "docker.sock")}
	var err error
	if d.group, err = b.group(d.name()); err != nil {
		return nil, err
	}
	state := filepath.Join(b.dir, "docker")
	err = b.daemon(ctx, d.group, []string{"docker", "-H", d.host, "version"}, "dockerd", "--host", d.host, "--data-root", state,
		"--exec-root", state+"-exec", "--pidfile", state+".pid", "--bridge", "none", "--iptables=false")
	return d, err
}

func (d *docker) name() string { return "docker" }

func (d *docker) version(ctx context.Context) (string, error) {
	v, err := firstLine(ctx, "docker", "-H", d.host, "version", "--format", "Docker {{.Server.Version}}")
	return v + ", its own builder", err
}

func (d *docker) forget(ctx context.Context) error {
	_, err := lab.Must(ctx, "docker", "-H", d.host, "system", "prune", "--all", "--force", "--volumes")
	return err
}

func (d *docker) build(ctx context.Context, dir, ref string) (usage, error) {
	const script = `export DOCKER_BUILDKIT=0; docker -H "$1" build --network host --no-cache --cgroup-parent "$2" -t "$3" "$4" && docker -H "$1" push "$3"`
	return d.group.measure(ctx, func(ctx context.Context) error {
		return runIn(ctx, d.group, "sh", "-c", script, "sh", d.host, d.group.path, ref, dir)
	})
}

// buildah keeps its storage below our directory; it has no daemon.
type buildah struct {
	group *cgroup
	args  []string
}

func (b *bench) openBuildah(context.Context) (builder, error) {
	if _, err := exec.LookPath("buildah"); err != nil {
		return nil, err
	}
	policy := filepath.Join(b.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o644); err != nil {
		return nil, fmt.Errorf("write buildah's policy: %w", err)
	}
	state := filepath.Join(b.dir, "buildah")
	a := &buildah{args: []string{"--root", state, "--runroot", state + "-run", "--storage-driver", "overlay"}}
	var err error
	a.group, err = b.group(a.name())
	return a, err
}

func (a *buildah) name() string { return "buildah" }

func (a *buildah) version(ctx context.Context) (string, error) {
	v, err := firstLine(ctx, "buildah", "--version")
	return v + ", chroot isolation, overlay storage", err
}

func (a *buildah) forget(ctx context.Context) error {
	_, err := lab.Must(ctx, append(append([]string{"buildah"}, a.args...), "rmi", "--all", "--force")...)
	return err
}

func (a *buildah) build(ctx context.Context, dir, ref string) (usage, error) {
	policy := filepath.Join(filepath.Dir(a.args[1]), "policy.json")
	bud := append(append([]string{"buildah"}, a.args...), "bud", "--isolation", "chroot", "--network", "host", "--no-cache", "--layers", "--tls-verify=false", "--signature-policy", policy, "-t", ref, dir)
	push := append(append([]string{"buildah"}, a.args...), "push", "--tls-verify=false", "--signature-policy", policy, ref)
	return a.group.measure(ctx, func(ctx context.Context) error {
		if err := runIn(ctx, a.group, bud...); err != nil {
			return err
		}
		return runIn(ctx, a.group, push...)
	})
}

// buildkit is a daemon of our own with runc.
type buildkit struct {
	group                *cgroup
	buildkitd, ctl, addr string
}

func (b *bench) openBuildkit(ctx context.Context) (builder, error) {
	k := &buildkit{buildkitd: "buildkitd", ctl: "buildctl", addr: "unix://" + filepath.Join(b.dir, "buildkitd.sock")}
	if b.buildkit != "" {
		k.buildkitd, k.ctl = filepath.Join(b.buildkit, k.buildkitd), filepath.Join(b.buildkit, k.ctl)
	}
	for _, tool := range []string{k.buildkitd, k.ctl, "runc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, err
		}
	}
	var err error
	if k.group, err = b.group(k.name()); err != nil {
		return nil, err
	}
	config := filepath.Join(b.dir, "buildkitd.toml")
	text := fmt.Sprintf("[registry.%q]\n  http = true\n[worker.containerd]\n  enabled = false\n[worker.oci]\n  enabled = true\n  defaultCgroupParent = %q\n", b.registry.Addr, k.group.path)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configure buildkitd: %w", err)
	}
	err = b.daemon(ctx, k.group, []string{k.ctl, "--addr", k.addr, "debug", "workers"}, k.buildkitd, "--config", config,
		"--addr", k.addr, "--root", filepath.Join(b.dir, "buildkit"))
	return k, err
}

func (k *buildkit) name() string { return "buildkit" }

func (k *buildkit) version(ctx context.Context) (string, error) {
	return firstLine(ctx, k.buildkitd, "--version")
}

func (k *buildkit) forget(ctx context.Context) error {
	_, err := lab.Must(ctx, k.ctl, "--addr", k.addr, "prune", "--all")
	return err
}

func (k *buildkit) build(ctx context.Context, dir, ref string) (usage, error) {
	return k.group.measure(ctx, func(ctx context.Context) error {
		return runIn(ctx, k.group, k.ctl, "--addr", k.addr, "build", "--progress", "plain", "--no-cache", "--frontend", "dockerfile.v0",
			"--local", "context="+dir, "--local", "dockerfile="+dir, "--output", "type=image,name="+ref+",push=true")
	})
}
