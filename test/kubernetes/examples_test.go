package kubernetes

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"

	"hako/test/lab"
)

// object is a part of an example's YAML.
type object = map[string]any

// testExamples runs the pods of examples for CI systems as those systems make them, in a namespace that enforces "restricted", with
// the registry, the images and the Secret of the tests. The systems themselves are not there: of their own containers
// only a shell stands in.
func testExamples(t *testing.T, f *fixture) {
	s := newShop(t, f)
	f.configMap(t, s.ns, "source", map[string]string{"Dockerfile": s.dockerfile(t)})
	t.Run("tekton", s.tekton)
	t.Run("argo", s.argo)
	t.Run("jenkins", s.jenkins)
	t.Run("gitlab", s.gitlab)
	t.Run("github", s.github)
	t.Run("github container", s.githubContainer)
}

// dockerfile is a context without directories, as a ConfigMap holds it.
func (s *shop) dockerfile(t *testing.T) string {
	t.Helper()
	return "FROM " + must[string](t)(s.busybox()) + "\nRUN id -u > /uid\nCOPY Dockerfile /srv/\n"
}

// example is a file of examples with this registry and these images; its executor gets the flags for registries without TLS.
func (s *shop) example(t *testing.T, file string) string {
	t.Helper()
	flags := strings.Join(s.flags, " ")
	return strings.NewReplacer(
		"registry.example.com/hako/executor:latest", s.image("executor"), "registry.example.com/hako/executor:debug", s.image("debug"),
		"registry.example.com/", s.inPod(s.private.Addr)+"/", "/kaniko/executor --", "/kaniko/executor "+flags+" --",
	).Replace(must[string](t)(lab.ExampleText(file)))
}

// documents are those of a text of YAML.
func documents(t *testing.T, text string) []object {
	t.Helper()
	var out []object
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o object
		err := d.Decode(&o)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
}

// in is what keys lead to in an object, all of which must be there.
func in[T any](t *testing.T, o any, path ...string) T {
	t.Helper()
	for _, key := range path {
		m, _ := o.(object)
		o = m[key]
	}
	v, ok := o.(T)
	if !ok {
		t.Fatalf("%v is %T", path, o)
	}
	return v
}

// replaced is an object with texts replaced everywhere, as systems do it with parameters.
func replaced(t *testing.T, o any, pairs ...string) object {
	t.Helper()
	text := must[[]byte](t)(json.Marshal(o))
	var out object
	if err := json.Unmarshal([]byte(strings.NewReplacer(pairs...).Replace(string(text))), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// start applies a pod of a spec.
func (s *shop) start(t *testing.T, name string, spec object) {
	t.Helper()
	spec["restartPolicy"] = "Never"
	s.apply(t, s.ns, string(must[[]byte](t)(json.Marshal(object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name}, "spec": spec}))))
}

// pushed wants an image in the registry with a password.
func (s *shop) pushed(t *testing.T, ref string) string {
	t.Helper()
	return digest(t, s.private, ref)
}

// addVolume adds a volume and its mount in a container.
func addVolume(spec, container object, path string, source object) {
	name := fmt.Sprintf("test-%d", len(spec["volumes"].([]any)))
	v := maps.Clone(source)
	v["name"] = name
	spec["volumes"] = append(spec["volumes"].([]any), v)
	mounts, _ := container["volumeMounts"].([]any)
	container["volumeMounts"] = append(mounts, object{"name": name, "mountPath": path})
}

func sourceMap() object { return object{"configMap": object{"name": "source"}} }

// tekton makes the pod of the TaskRun: the step's container in the pod of its template, with workspaces and results as volumes.
func (s *shop) tekton(t *testing.T) {
	all := documents(t, s.example(t, "kubernetes/tekton-task.yaml"))
	task, run := all[0], all[1]
	step := in[[]any](t, task, "spec", "steps")[0]
	ref := in[string](t, in[[]any](t, run, "spec", "params")[0], "value")
	c := replaced(t, step, "$(workspaces.source.path)", "/workspace/source", "$(params.DOCKERFILE)", "./Dockerfile", "$(params.CONTEXT)", "./", "$(params.IMAGE)", ref,
		"$(results.IMAGE_DIGEST.path)", "/tekton/results/IMAGE_DIGEST", "$(results.IMAGE_URL.path)", "/tekton/results/IMAGE_URL", `"$(params.EXTRA_ARGS[*])",`, "")
	for _, flag := range s.flags {
		c["args"] = append(c["args"].([]any), flag)
	}
	c["args"] = append(c["args"].([]any), "--digest-file=/dev/termination-log")
	delete(c, "computeResources")
	spec := in[object](t, run, "spec", "podTemplate")
	spec["volumes"] = in[[]any](t, task, "spec", "volumes")
	addVolume(spec, c, "/workspace/source", sourceMap())
	addVolume(spec, c, "/tekton/results", object{"emptyDir": object{}})
	workspaces := in[[]any](t, run, "spec", "workspaces")
	addVolume(spec, c, "/kaniko/.docker", object{"secret": in[object](t, workspaces[1], "secret")})
	spec["containers"] = []any{c}
	s.start(t, "tekton", spec)
	if e := succeed(t, s.awaitPod(t, s.ns, "tekton")); e.Message != s.pushed(t, ref) {
		t.Errorf("termination message %q", e.Message)
	}
}

// argo makes the pod of the template, with the pod's part of the workflow.
func (s *shop) argo(t *testing.T) {
	spec := in[object](t, documents(t, s.example(t, "kubernetes/argo-workflow.yaml"))[0], "spec")
	ref := s.ref("argo:1")
	c := replaced(t, in[object](t, in[[]any](t, spec, "templates")[0], "container"),
		"{{inputs.parameters.context}}", s.repository(t), "{{inputs.parameters.image}}", ref, "{{inputs.parameters.dockerfile}}", "Dockerfile")
	for _, flag := range append(slices.Clone(s.flags), "--digest-file=/dev/termination-log") {
		c["args"] = append(c["args"].([]any), flag)
	}
	c["name"] = "main"
	s.start(t, "argo", object{
		"automountServiceAccountToken": spec["automountServiceAccountToken"], "securityContext": spec["securityContext"], "volumes": spec["volumes"], "containers": []any{c},
	})
	s.check(t, ref, s.awaitPod(t, s.ns, "argo"))
}

// awaitReady waits until the containers of a pod run.
func (s *shop) awaitReady(t *testing.T, name string) {
	t.Helper()
	s.mustKubectl(t, "", "-n", s.ns, "wait", "--for=condition=Ready", "pod/"+name, "--timeout=3m")
}

// jenkins makes the agent's pod, with the volume of the workspace that the plugin adds, and runs the step in it by exec.
func (s *shop) jenkins(t *testing.T) {
	file := s.example(t, "ci/Jenkinsfile")
	spec := in[object](t, documents(t, must[string](t)(lab.JenkinsBlock(file, "yaml")))[0], "spec")
	script := must[string](t)(lab.JenkinsBlock(file, "sh"))
	containers := in[[]any](t, spec, "containers")
	agent := containers[0].(object)
	agent["image"], agent["command"] = s.image("debug"), []string{"sleep", "infinity"}
	const workspace = "/home/jenkins/agent/workspace/app"
	shared := object{"name": "workspace-volume", "mountPath": "/home/jenkins/agent"}
	spec["volumes"] = append(in[[]any](t, spec, "volumes"), object{"name": "workspace-volume", "emptyDir": object{}})
	for _, c := range containers {
		mounts, _ := c.(object)["volumeMounts"].([]any)
		c.(object)["volumeMounts"] = append(mounts, shared)
	}
	s.start(t, "jenkins", spec)
	s.awaitReady(t, "jenkins")
	exec := func(container, stdin, script string) string {
		t.Helper()
		return s.mustKubectl(t, stdin, "-n", s.ns, "exec", "-i", "-c", container, "jenkins", "--", "sh", "-c", script)
	}
	exec("jnlp", s.dockerfile(t), "mkdir -p "+workspace+" && cat > "+workspace+"/Dockerfile")
	exec("hako", "", "cd "+workspace+" && export WORKSPACE=$PWD BUILD_NUMBER=7; nohup sh -xe -c '"+script+"'")
	if got := exec("jnlp", "", "cat "+workspace+"/digest"); got != s.pushed(t, s.ref("app:7")) {
		t.Errorf("digest %q", got)
	}
}

// gitlab makes the pod that the configuration of the runner asks for, and runs the jobs of the example in it.
func (s *shop) gitlab(t *testing.T) {
	values := documents(t, s.example(t, "ci/gitlab-runner-values.yaml"))[0]
	var config struct {
		Runners []struct{ Kubernetes map[string]any }
	}
	if err := toml.Unmarshal([]byte(in[string](t, values, "runners", "config")), &config); err != nil {
		t.Fatal(err)
	}
	k := config.Runners[0].Kubernetes
	pod := in[object](t, k, "pod_security_context")
	var patch object
	if err := yaml.Unmarshal([]byte(in[[]object](t, k, "pod_spec")[0]["patch"].(string)), &patch); err != nil {
		t.Fatal(err)
	}
	security := in[object](t, patch, "securityContext")
	for from, to := range map[string]string{"run_as_non_root": "runAsNonRoot", "run_as_user": "runAsUser", "run_as_group": "runAsGroup", "fs_group": "fsGroup"} {
		security[to] = pod[from]
	}
	addr := s.inPod(s.private.Addr)
	for i, job := range must[[]lab.ExampleStep](t)(lab.ReadExample("ci/gitlab-ci.yml")) {
		script := strings.ReplaceAll(strings.Join(job.Script, "\n"), "/kaniko/executor --", "/kaniko/executor "+strings.Join(s.flags, " ")+" --")
		name := fmt.Sprintf("gitlab-%d", i)
		c := object{
			"name": "build", "image": k["image"], "command": []string{"sh", "-c", "set -eu; cp /source/Dockerfile \"$CI_PROJECT_DIR\"; cd \"$CI_PROJECT_DIR\"\n" + script},
			"securityContext": object{"privileged": k["privileged"], "allowPrivilegeEscalation": k["allow_privilege_escalation"], "capabilities": object{"drop": k["cap_drop"]}},
			"resources":       object{"requests": object{"cpu": k["cpu_request"], "memory": k["memory_request"]}, "limits": object{"memory": k["memory_limit"]}},
			"env": variables(map[string]string{
				"CI_PROJECT_DIR": "/builds", "CI_REGISTRY": addr, "CI_REGISTRY_USER": registryUser, "CI_REGISTRY_PASSWORD": registryPassword,
				"CI_REGISTRY_IMAGE": addr + "/group/project", "CI_COMMIT_TAG": "v1", "CI_COMMIT_REF_SLUG": "main",
			}),
		}
		spec := object{"automountServiceAccountToken": k["automount_service_account_token"], "securityContext": security, "volumes": []any{}, "containers": []any{c}}
		addVolume(spec, c, "/builds", object{"emptyDir": object{}})
		addVolume(spec, c, "/source/", sourceMap())
		s.start(t, name, spec)
		succeed(t, s.awaitPod(t, s.ns, name))
		s.pushed(t, addr+"/group/project:"+[]string{"v1", "main"}[i])
	}
}

func variables(env map[string]string) []any {
	var out []any
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, object{"name": name, "value": env[name]})
	}
	return out
}

// step is the only step of a job of github-arc.yml that runs something, with this registry in place of GitHub's.
func (s *shop) step(t *testing.T, job string) string {
	t.Helper()
	steps := in[[]any](t, documents(t, s.example(t, "ci/github-arc.yml"))[0], "jobs", job, "steps")
	return strings.ReplaceAll(in[string](t, steps[len(steps)-1], "run"), "ghcr.io", s.inPod(s.private.Addr))
}

// github makes the runner's pod, with a shell in place of the runner, and submits the build from it.
func (s *shop) github(t *testing.T) {
	s.mustKubectl(t, "", "-n", s.ns, "apply", "-k", filepath.Join(must[string](t)(lab.ModuleRoot()), "deploy/kubernetes/setup/submit"))
	spec := in[object](t, documents(t, s.example(t, "ci/github-arc-values.yaml"))[0], "template", "spec")
	runner := in[[]any](t, spec, "containers")[0].(object)
	script := strings.NewReplacer("submit .", "submit /workspace "+strings.Join(s.flags, " "), "--memory=4Gi --cpu=2", "--memory=1Gi --cpu=250m").Replace(s.step(t, "submit"))
	runner["image"], runner["command"] = s.image("debug"), []string{"sh", "-c", script}
	runner["env"] = append(in[[]any](t, runner, "env"), variables(map[string]string{"GITHUB_REPOSITORY": "team/github", "GITHUB_SHA": "abc"})...)
	addVolume(spec, runner, "/workspace", sourceMap())
	addVolume(spec, runner, "/kaniko/.docker", object{"secret": object{"secretName": "regcred", "items": []any{object{"key": ".dockerconfigjson", "path": "config.json"}}}})
	s.reachCluster(t, spec)
	s.start(t, "github", spec)
	if e := succeed(t, s.awaitPod(t, s.ns, "github")); !strings.Contains(e.Log, s.pushed(t, s.ref("github:abc"))) {
		t.Errorf("log of the runner:\n%s", e.Log)
	}
}

// githubContainer makes the pod of a container job with the template of the hook, and runs the step in it by exec.
func (s *shop) githubContainer(t *testing.T) {
	hook := in[string](t, documents(t, s.example(t, "ci/github-arc-hook.yaml"))[0], "data", "pod.yaml")
	spec := in[object](t, documents(t, hook)[0], "spec")
	c := in[[]any](t, spec, "containers")[0].(object)
	place, _, _ := strings.Cut(strings.TrimPrefix(s.repository(t), "git://"), "/")
	c["name"], c["image"], c["command"] = "job", s.image("debug"), []string{"tail", "-f", "/dev/null"}
	c["env"] = variables(map[string]string{
		"GITHUB_SERVER_URL": "http://" + place, "GITHUB_REPOSITORY": "app", "GITHUB_SHA": s.commit, "GIT_TOKEN": gitToken, "GITHUB_ACTOR": registryUser, "GITHUB_TOKEN": registryPassword,
	})
	spec["volumes"] = []any{}
	addVolume(spec, c, "/__w", object{"emptyDir": object{}})
	s.start(t, "github-container", spec)
	s.awaitReady(t, "github-container")
	s.mustKubectl(t, s.step(t, "container"), "-n", s.ns, "exec", "-i", "github-container", "--", "sh", "-e")
	if got := digest(t, s.private, s.inPod(s.private.Addr)+"/app:"+s.commit); got != s.want {
		t.Errorf("digest %s, want %s", got, s.want)
	}
}
