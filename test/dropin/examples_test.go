package dropin

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hako/test/lab"
)

// example reads the steps of an example, with our images and registry in place of those that it names.
func (f *fixture) example(t *testing.T, file string, more ...string) []lab.ExampleStep {
	t.Helper()
	var old []string
	for image, id := range f.images {
		old = append(old, "registry.example.com/hako/executor:"+strings.ReplaceAll(image, "executor", "latest"), id)
	}
	replace := strings.NewReplacer(append(append(more, old...), "registry.example.com/", f.registry.Addr+"/")...)
	steps := must[[]lab.ExampleStep](t)(lab.ReadExample(file))
	for i := range steps {
		steps[i].Image = replace.Replace(steps[i].Image)
		for _, list := range [][]string{steps[i].Args, steps[i].Script} {
			for j := range list {
				list[j] = replace.Replace(list[j])
			}
		}
	}
	return steps
}

// testPod has the arguments, the image and the mounts of the example: a volume with the context, and the secret regcred, which
// the kubelet mounts as links to a directory of its own; and kaniko's other images in other containers.
func testPod(t *testing.T, f *fixture) {
	step := f.example(t, "kubernetes/pod.yaml")[0]
	wrapped := append(wrappings(), wrapping{name: "example", flags: restricted("--tmpfs", "/tmp")})
	for _, w := range wrapped {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			volume := f.context(t)
			secret := f.write(t, map[string]string{"..2026_11_23/config.json": f.dockerConfig()})
			for link, to := range map[string]string{"..data": "..2026_11_23", "config.json": "..data/config.json"} {
				if err := os.Symlink(to, filepath.Join(secret, link)); err != nil {
					t.Fatal(err)
				}
			}
			image := step.Image
			if w.image != "" {
				image = f.images[w.image]
			}
			args := append([]string{"-v", volume + ":/workspace:ro", "-v", secret + ":/kaniko/.docker:ro"}, w.flags...)
			var refs []string
			for _, a := range step.Args {
				if to, ok := strings.CutPrefix(a, "--destination="); ok {
					refs = append(refs, to+"-"+w.name)
					a += "-" + w.name
				}
				args = append(args, a)
			}
			// The image stands before its arguments.
			at := len(args) - len(step.Args)
			args = append(append(append([]string{}, args[:at]...), image), args[at:]...)
			succeed(t, nil, args...)
			for _, ref := range refs {
				f.checkTree(t, ref)
			}
		})
	}
}

// testGitLab runs the jobs of the example as GitLab's runner does: it looks for a shell, and gives it a script on standard
// input that sets variables, changes to the project and runs the lines of the job.
func testGitLab(t *testing.T, f *fixture) {
	const detect = "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec /usr/bin/bash \n" +
		"elif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec /usr/local/bin/sh \n" +
		"elif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \nelif [ -x /bin/sh ]; then\n\texec /bin/sh \n" +
		"elif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n"
	variables := fmt.Sprintf(`export CI=$'true'
export CI_REGISTRY=$'%[1]s'
export CI_REGISTRY_USER=$'%[2]s'
export CI_REGISTRY_PASSWORD=$'%[3]s'
export CI_REGISTRY_IMAGE=$'%[1]s/group/project'
export CI_COMMIT_TAG=$'v1.0'
export CI_COMMIT_REF_SLUG=$'main'
export CI_PROJECT_DIR=$'/builds/group/project'
`, f.registry.Addr, user, password)
	const end = "end of the job"
	const tools = `test "$(sed -n 's/^FROM //p' Dockerfile | wc -l)" -eq 1
env | grep -q CI_REGISTRY= && which wget cat cp awk > /dev/null
`
	refs := []string{"v1.0", "main"}
	for i, step := range f.example(t, "ci/gitlab-ci.yml") {
		script := "if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit\nset +o noclobber\n" + variables +
			"cd $'/builds/group/project'\n" + strings.Join(step.Script, "\n") + "\n" + tools + "echo " + end + "\nexit 0\n"
		for _, flags := range [][]string{nil, {"--user", "1000:1000"}, restricted("--user", "1000:1000", "--tmpfs", "/kaniko/.docker:mode=777")} {
			args := append([]string{"-i", "--entrypoint", "", "-v", f.context(t) + ":/builds/group/project"}, flags...)
			r := succeed(t, strings.NewReader(script), append(args, step.Image, "sh", "-c", detect)...)
			if !strings.Contains(r.Output, end) {
				t.Fatalf("the shell did not come to the end of its script:\n%s", r.Output)
			}
			f.checkTree(t, f.registry.Addr+"/group/project:"+refs[i])
		}
	}
}

// testCloudBuild runs the step of the example as Google Cloud Build does, which reads the digest from BUILDER_OUTPUT.
func testCloudBuild(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/containers/app:abc1234"
	step := f.example(t, "ci/cloudbuild.yaml", "$_REGION-docker.pkg.dev/$PROJECT_ID", f.registry.Addr, "$SHORT_SHA", "abc1234")[0]
	out := f.writable(t)
	config := f.write(t, map[string]string{".docker/config.json": f.dockerConfig()})
	args := append([]string{
		"-v", f.context(t) + ":/workspace", "-w", "/workspace", "-v", config + ":/builder/home", "-e", "HOME=/builder/home",
		"-v", out + ":/builder/outputs", "-e", "BUILDER_OUTPUT=/builder/outputs", "-e", "DOCKER_CONFIG=/builder/home/.docker", step.Image,
	}, step.Args...)
	succeed(t, nil, args...)
	want := fmt.Sprintf(`{"name":%q,"digest":%q}`, ref, f.digest(t, ref))
	if got := strings.TrimSpace(string(must[[]byte](t)(os.ReadFile(filepath.Join(out, "images"))))); got != want {
		t.Errorf("images: %s, want %s", got, want)
	}
	again := succeed(t, nil, args...)
	if strings.Contains(again.Output, " done in ") || !strings.Contains(again.Output, "cache") {
		t.Errorf("the second build did not use the cache:\n%s", again.Output)
	}
}

// testTekton runs the step of the task with its workspaces and results, and no further arguments.
func testTekton(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/tekton:1"
	step := f.example(t, "kubernetes/tekton-task.yaml",
		"$(params.DOCKERFILE)", "./Dockerfile", "$(workspaces.source.path)", "/workspace/source", "$(params.CONTEXT)", "./", "$(params.IMAGE)", ref,
		"$(results.IMAGE_DIGEST.path)", "/tekton/results/IMAGE_DIGEST", "$(results.IMAGE_URL.path)", "/tekton/results/IMAGE_URL")[0]
	results := f.writable(t)
	config := f.write(t, map[string]string{"config.json": f.dockerConfig()})
	args := []string{
		"-v", f.context(t) + ":/workspace/source", "-w", "/workspace/source", "-v", config + ":/kaniko/.docker:ro", "-v", results + ":/tekton/results",
		"--user", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", step.Image,
	}
	for _, a := range step.Args {
		if a != "$(params.EXTRA_ARGS[*])" {
			args = append(args, a)
		}
	}
	succeed(t, nil, args...)
	digest := f.digest(t, ref)
	for file, want := range map[string]string{"IMAGE_DIGEST": digest, "IMAGE_URL": f.registry.Addr + "/tekton@" + digest + "\n"} {
		if got := string(must[[]byte](t)(os.ReadFile(filepath.Join(results, file)))); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// shell runs a script of an example in a directory; docker run is given the machine's network, where the registry is.
func (f *fixture) shell(t *testing.T, dir, script string, env []string, args ...string) {
	t.Helper()
	real := must[string](t)(exec.LookPath("docker"))
	bin := f.write(t, map[string]string{"docker.sh": fmt.Sprintf("#!/bin/sh\nshift\nexec %s run --network host \"$@\"\n", real)})
	if err := os.Symlink("docker.sh", filepath.Join(bin, "docker")); err != nil {
		t.Fatal(err)
	}
	env = append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: append([]string{"sh", "-c", script, "sh"}, args...), Dir: dir, Env: env}))
	if checkQuiet(t, r.Output); r.ExitCode != 0 {
		t.Fatalf("exit code %d\n%s", r.ExitCode, r.Output)
	}
}

// testGitHub runs the step that starts the build as GitHub's runner does.
func testGitHub(t *testing.T, f *fixture) {
	step := f.example(t, "ci/github-actions.yml", "ghcr.io", f.registry.Addr)[0]
	home := f.write(t, map[string]string{".docker/config.json": f.dockerConfig()})
	f.shell(t, home, step.Script[0], []string{
		"GITHUB_WORKSPACE=" + f.context(t), "GITHUB_REPOSITORY=octo/app", "GITHUB_SHA=0123abc", "GITHUB_SERVER_URL=https://github.com",
	})
	ref := f.registry.Addr + "/octo/app:0123abc"
	f.checkTree(t, ref)
	config, err := f.image(t, ref).ConfigFile()
	if err != nil || config.Config.Labels["org.opencontainers.image.source"] != "https://github.com/octo/app" {
		t.Errorf("labels %v, %v", config.Config.Labels, err)
	}
}

// testScripts runs the scripts with docker run.
func testScripts(t *testing.T, f *fixture) {
	home := f.write(t, map[string]string{".docker/config.json": f.dockerConfig()})
	env := []string{"HAKO_IMAGE=" + f.images["executor"], "BASE=" + f.base}
	f.shell(t, home, f.example(t, "docker/run.sh")[0].Script[0], env, f.context(t), f.registry.Addr+"/scripts:run")
	f.checkTree(t, f.registry.Addr+"/scripts:run")
	f.shell(t, home, f.example(t, "docker/stdin.sh")[0].Script[0], env, f.registry.Addr+"/scripts:stdin")
	tree := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), f.registry.Addr+"/scripts:stdin"))
	if _, ok := tree["/created"]; !ok {
		t.Error("the image from standard input has no /created")
	}
}

// testWarmer fills a volume with the warmer image, and builds from it: the executor has the volume read-only.
func testWarmer(t *testing.T, f *fixture) {
	config := f.write(t, map[string]string{"config.json": f.dockerConfig()})
	for _, w := range wrappings() {
		volume := f.writable(t)
		args := append([]string{"-v", volume + ":/cache", "-v", config + ":/kaniko/.docker:ro"}, w.flags...)
		succeed(t, nil, append(args, f.images["warmer"], "--cache-dir=/cache", "--image="+f.base)...)
		entries := must[[]os.DirEntry](t)(os.ReadDir(volume))
		if len(entries) == 0 {
			t.Fatal("the warmer left nothing")
		}
		ref := f.registry.Addr + "/warmed:" + w.name
		args = append([]string{"-v", volume + ":/cache:ro", "-v", f.context(t) + ":/workspace:ro", "-v", config + ":/kaniko/.docker:ro"}, w.flags...)
		succeed(t, nil, append(args, f.images[w.image], "--cache", "--cache-dir=/cache", "--no-push-cache", "--cache-offline", "--destination="+ref)...)
		f.checkTree(t, ref)
	}
}
