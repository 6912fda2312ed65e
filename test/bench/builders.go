package main

import (
	"context"
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
	describe(ctx context.Context) (string, error)
	// forget drops everything kept from earlier builds, bases included, so that each build is cold.
	forget(ctx context.Context) error
	// build builds dir and pushes ref; it returns what that took.
	build(ctx context.Context, dir, ref string) (usage, error)
}

// foreign says whether an image of this builder may differ from ours: kaniko, Docker's old builder and buildah are known to.
func foreign(bu builder) bool {
	return !strings.HasPrefix(bu.name(), "hako") && bu.name() != "buildkit"
}

// findBuilders starts the builders that this machine has.
func (b *bench) findBuilders(ctx context.Context) error {
	for _, k := range []struct {
		name string
		open func(context.Context) (builder, error)
	}{
		{"hako", b.openHako}, {"hako-sentry", b.openSentry}, {"hako-default", b.openDefault}, {"hako-restricted", b.openRestricted},
		{"hako-warm", b.openWarm}, {"hako-sentry-warm", b.openSentryWarm}, {"hako-restricted-warm", b.openRestrictedWarm},
		{"docker", b.openDocker}, {"buildah", b.openBuildah}, {"buildkit", b.openBuildkit}, {"kaniko", b.openKaniko}, {"kaniko-fast", b.openKanikoFast},
	} {
		if !chosen(b.options.builders, k.name) {
			continue
		}
		bu, err := k.open(ctx)
		if err != nil {
			b.absent = append(b.absent, fmt.Sprintf("%s: %v", k.name, err))
			continue
		}
		if _, ok := bu.(cacher); b.rebuild && !ok {
			b.absent = append(b.absent, k.name+": not measured with a cache in a registry")
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

func (d *docker) describe(ctx context.Context) (string, error) {
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

func (a *buildah) describe(ctx context.Context) (string, error) {
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

func (k *buildkit) describe(ctx context.Context) (string, error) {
	return firstLine(ctx, k.buildkitd, "--version")
}

func (k *buildkit) forget(ctx context.Context) error {
	_, err := lab.Must(ctx, k.ctl, "--addr", k.addr, "prune", "--all")
	return err
}

func (k *buildkit) build(ctx context.Context, dir, ref string) (usage, error) {
	return k.run(ctx, dir, ref, "--no-cache")
}

func (k *buildkit) run(ctx context.Context, dir, ref string, more ...string) (usage, error) {
	args := []string{
		k.ctl, "--addr", k.addr, "build", "--progress", "plain", "--frontend", "dockerfile.v0",
		"--local", "context=" + dir, "--local", "dockerfile=" + dir, "--output", "type=image,name=" + ref + ",push=true",
	}
	return k.group.measure(ctx, func(ctx context.Context) error { return runIn(ctx, k.group, append(args, more...)...) })
}
