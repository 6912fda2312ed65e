package kubernetes

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
	"hako/internal/gittree/gittest"
	"hako/test/lab"
)

const (
	registryUser     = "robot"
	registryPassword = "sesame-1a2b3c" // must appear nowhere
	gitToken         = "git-token-4d5e6f"
)

// shop is a namespace with everything that the manifests below deploy/kubernetes want: a registry with a password and the Secret
// regcred for it, and the same context in each place that a context can be in.
type shop struct {
	*fixture
	ns string
	// private is the registry with a password.
	private *lab.Registry
	// files is the context; want the digest of its image, as the command line makes it.
	files map[string]string
	want  string
	// insecure are the flags for two registries without TLS, and those for the same image every time.
	flags []string
	// commit is the last one of the latest repository.
	commit string
}

func newShop(t *testing.T, f *fixture) *shop {
	t.Helper()
	s := &shop{fixture: f, ns: f.namespace(t, "restricted")}
	s.private = f.startRegistry(t, lab.RegistryOptions{User: registryUser, Password: registryPassword})
	addr := f.expose(t, s.private.Addr)
	s.files = map[string]string{
		"Dockerfile":    fmt.Sprintf("FROM %s\nRUN id -u > /uid && chown 12:34 /uid\nCOPY . /srv/\nRUN wc -c /srv/a/b > /size\n", must[string](t)(f.busybox())),
		".dockerignore": ".git\n", "a/b": "in the context\n",
	}
	s.flags = []string{"--insecure-registry=" + addr, "--insecure-registry=" + f.inPod(f.registry.Addr), "--source-date-epoch=1000000000", "--rewrite-timestamp"}
	here := f.inPod(f.registry.Addr) + "/shop:here"
	must[string](t)(lab.Must(t.Context(), append([]string{f.hako, "build", f.writeFiles(t, s.files), "-t", here}, s.flags...)...))
	s.want = digest(t, f.registry, here)
	f.secret(t, s.ns, addr)
	return s
}

// secret makes the Secret regcred with the login of the registry at addr.
func (f *fixture) secret(t *testing.T, ns, addr string) {
	t.Helper()
	f.mustKubectl(t, "", "-n", ns, "create", "secret", "docker-registry", "regcred", "--docker-server="+addr, "--docker-username="+registryUser, "--docker-password="+registryPassword)
}

// ref is a name in the registry with a password, as pods reach it.
func (s *shop) ref(name string) string { return s.inPod(s.private.Addr) + "/team/" + name }

// overlay is what users write: a kustomization that stands on one below deploy/kubernetes.
type overlay struct {
	// Base is the directory below deploy/kubernetes, Suffix is added to the names of all that it makes.
	Base, Suffix string
	// Literals are set in the ConfigMap hako-build.
	Literals map[string]string
	// Kind and Args are what is appended to the arguments of the container of that kind of object.
	Kind string
	Args []string
	// More is further text of the kustomization.
	More string
}

// render is the result of the kustomization, in which the images are those of the tests.
func (f *fixture) render(t *testing.T, o overlay) string {
	t.Helper()
	dir := f.newDir(t)
	root := must[string](t)(lab.ModuleRoot())
	base := must[string](t)(filepath.Rel(dir, filepath.Join(root, "deploy/kubernetes", o.Base)))
	var text strings.Builder
	fmt.Fprintf(&text, "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [%s]\nnameSuffix: %q\nimages:\n", base, o.Suffix)
	for _, name := range []string{"executor", "warmer"} {
		image := f.image(name)
		at := strings.LastIndex(image, ":")
		fmt.Fprintf(&text, "- {name: registry.example.com/hako/%s, newName: %q, newTag: %q}\n", name, image[:at], image[at+1:])
	}
	if len(o.Literals) > 0 {
		text.WriteString("configMapGenerator:\n- name: hako-build\n  behavior: merge\n  literals:\n")
		for _, k := range slices.Sorted(maps.Keys(o.Literals)) {
			fmt.Fprintf(&text, "  - %q\n", k+"="+o.Literals[k])
		}
	}
	if len(o.Args) > 0 {
		path := map[string]string{"Job": "/spec/template", "Pod": "", "CronJob": "/spec/jobTemplate/spec/template"}[o.Kind] + "/spec/containers/0/args/-"
		fmt.Fprintf(&text, "patches:\n- target: {kind: %s}\n  patch: |-\n", o.Kind)
		for _, a := range o.Args {
			fmt.Fprintf(&text, "    - {op: add, path: %s, value: %q}\n", path, a)
		}
	}
	text.WriteString(o.More)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return f.mustKubectl(t, "", "kustomize", dir)
}

// check wants the image that the command line made under ref, its digest as the termination message, and no secret in the log.
func (s *shop) check(t *testing.T, ref string, e ended) {
	t.Helper()
	succeed(t, e)
	if e.Message != s.want {
		t.Errorf("termination message %q, want %s", e.Message, s.want)
	}
	if digest(t, s.private, ref) != s.want {
		t.Errorf("%s is not the image that the command line makes", ref)
	}
	for _, secret := range []string{registryPassword, gitToken, buckettest.SecretKey} {
		if strings.Contains(e.Log, secret) {
			t.Errorf("a secret is in the log:\n%s", e.Log)
		}
	}
}

// build runs an overlay's Job to its end.
func (s *shop) build(t *testing.T, o overlay) ended {
	t.Helper()
	ref := s.ref("app:" + strings.TrimPrefix(o.Suffix, "-"))
	o.Literals["DESTINATION"], o.Kind, o.Args = ref, "Job", append(slices.Clone(s.flags), o.Args...)
	s.apply(t, s.ns, s.render(t, o))
	e := s.awaitJob(t, s.ns, "hako-build"+o.Suffix)
	s.check(t, ref, e)
	return e
}

// testManifests runs each overlay below deploy/kubernetes as users do, in a namespace that enforces the standard
// "restricted"; each makes the image that the command line makes, bit for bit.
func testManifests(t *testing.T, f *fixture) {
	s := newShop(t, f)
	t.Run("dry run", s.dryRun)
	t.Run("git", s.git)
	t.Run("s3", s.s3)
	t.Run("volume", s.volume)
	t.Run("cached", s.cached)
	t.Run("openshift", s.openshift)
	t.Run("stdin", s.stdin)
}

// dryRun has the API server check all manifests as they are here, and the example for people who come from kaniko: unknown fields,
// wrong values and what the standard "restricted" refuses, or warns of, are failures.
func (s *shop) dryRun(t *testing.T) {
	root := must[string](t)(lab.ModuleRoot())
	var manifests []string
	for _, pattern := range []string{"overlays/*", "setup/*"} {
		for _, dir := range must[[]string](t)(filepath.Glob(filepath.Join(root, "deploy/kubernetes", pattern))) {
			manifests = append(manifests, s.mustKubectl(t, "", "kustomize", dir))
		}
	}
	if len(manifests) < 9 {
		t.Fatalf("%d kustomizations, want all of deploy/kubernetes", len(manifests))
	}
	manifests = append(manifests, must[string](t)(read(filepath.Join(root, "examples/kubernetes/pod.yaml"))))
	for _, manifest := range manifests {
		r := s.kubectl(t, manifest, "-n", s.ns, "apply", "--validate=strict", "--dry-run=server", "-f", "-")
		if r.ExitCode != 0 || strings.Contains(r.Output, "Warning:") {
			t.Errorf("kubectl apply --dry-run=server: exit code %d\n%s\n%s", r.ExitCode, r.Output, manifest)
		}
	}
}

// login makes the Secret context anew.
func (s *shop) login(t *testing.T, variables map[string]string) {
	t.Helper()
	args := []string{"-n", s.ns, "create", "secret", "generic", "context"}
	for k, v := range variables {
		args = append(args, "--from-literal="+k+"="+v)
	}
	s.mustKubectl(t, "", args...)
	t.Cleanup(func() { s.mustKubectl(t, "", "-n", s.ns, "delete", "secret", "context") })
}

// repository serves the context as a git repository that wants a token; it returns its place for pods.
func (s *shop) repository(t *testing.T) string {
	t.Helper()
	dir, work := s.newDir(t), s.writeFiles(t, s.files)
	gittest.Configure(t, dir)
	gittest.Git(t, dir, "", "-C", work, "init", "-q")
	gittest.Git(t, dir, "", "-C", work, "add", "-A")
	gittest.Git(t, dir, "", "-C", work, "commit", "-qm", "one")
	s.commit = strings.TrimSpace(gittest.Git(t, dir, "", "-C", work, "rev-parse", "HEAD"))
	gittest.Git(t, dir, "", "clone", "-q", "--mirror", work, "app.git")
	backend := gittest.Handler(dir)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != gitToken && password != gitToken {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s.login(t, map[string]string{"GIT_TOKEN": gitToken, "GIT_PULL_METHOD": "http"})
	return "git://" + s.expose(t, server.Listener.Addr().String()) + "/app.git#refs/heads/main"
}

func (s *shop) git(t *testing.T) {
	place := s.repository(t)
	s.build(t, overlay{Base: "overlays/git", Suffix: "-git", Literals: map[string]string{"CONTEXT": place}})
	s.submit(t, place, "GIT_TOKEN="+gitToken, "GIT_PULL_METHOD=http")
}

// submit submits a build whose context the pod fetches by itself. What the pod needs for that goes with the build from variables
// of this machine, or is in the Secret context, which the pod template names.
func (s *shop) submit(t *testing.T, place string, env ...string) {
	t.Helper()
	template := filepath.Join(s.newDir(t), "pod.yaml")
	if err := os.WriteFile(template, []byte("spec: {containers: [{name: executor, envFrom: [{secretRef: {name: context}}]}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	scheme, _, _ := strings.Cut(place, ":")
	ref := s.ref("submitted:" + scheme)
	args := append([]string{
		s.hako, "submit", place, "-d", ref, "--kubeconfig", s.kubeconfig, "--namespace", s.ns, "--executor-image", s.image("executor"), "--storage=1Gi",
		"--registry-secret=regcred", "--job-name=submitted-" + scheme,
	}, s.flags...)
	if len(env) == 0 {
		args = append(args, "--pod-template", template)
	}
	r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: args, Env: append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.newDir(t)}, env...)}))
	if r.ExitCode != 0 || digest(t, s.private, ref) != s.want {
		t.Errorf("exit code %d, and the image has to be %s: %s", r.ExitCode, s.want, tail(r.Output))
	}
	made := s.mustKubectl(t, "", "-n", s.ns, "get", "job", "submitted-"+scheme, "-o", "yaml")
	for _, secret := range []string{registryPassword, gitToken, buckettest.SecretKey} {
		if strings.Contains(made, secret) || strings.Contains(r.Output, secret) {
			t.Errorf("a secret is in the Job or its log: %s\n%s", made, r.Output)
		}
	}
}

// archive is the context as a tar.
func (s *shop) archive(t *testing.T) []byte {
	t.Helper()
	return []byte(must[string](t)(lab.Must(t.Context(), "tar", "-C", s.writeFiles(t, s.files), "-cz", ".")))
}

func (s *shop) s3(t *testing.T) {
	env := buckettest.Environment()
	for k, v := range env {
		t.Setenv(k, v)
	}
	server := buckettest.StartS3(t)
	b := must[*bucket.Bucket](t)(bucket.Open(t.Context(), bucket.Options{Getenv: server.Getenv}, must[bucket.Place](t)(bucket.Parse(server.Place))))
	defer b.Close()
	archive := s.archive(t)
	if err := b.Write(t.Context(), "context.tar.gz", bytes.NewReader(archive), int64(len(archive))); err != nil {
		t.Fatal(err)
	}
	s.login(t, map[string]string{
		"AWS_ACCESS_KEY_ID": buckettest.AccessKey, "AWS_SECRET_ACCESS_KEY": buckettest.SecretKey, "AWS_REGION": env["AWS_REGION"],
		"S3_ENDPOINT": "http://" + s.expose(t, strings.TrimPrefix(server.Endpoint, "http://")), "S3_FORCE_PATH_STYLE": "true",
	})
	place := server.Place + "/context.tar.gz"
	s.build(t, overlay{Base: "overlays/s3", Suffix: "-s3", Literals: map[string]string{"CONTEXT": place}})
	s.submit(t, place)
}

// volume builds from a claim, as a Job and as a Pod.
func (s *shop) volume(t *testing.T) {
	s.hostPath(t, s.ns, "source", s.writeFiles(t, s.files))
	s.build(t, overlay{Base: "overlays/volume", Suffix: "-volume", Literals: map[string]string{}})
	ref := s.ref("app:pod")
	s.apply(t, s.ns, s.render(t, overlay{Base: "overlays/pod", Suffix: "-pod", Literals: map[string]string{"DESTINATION": ref}, Kind: "Pod", Args: s.flags}))
	s.check(t, ref, s.awaitPod(t, s.ns, "hako-build-pod"))
}

// cached fills the claim of base images by the warmer's CronJob, and builds twice with the cache on a claim, without asking
// a registry for images.
func (s *shop) cached(t *testing.T) {
	s.localVolume(t, s.ns, "hako-bases")
	s.localVolume(t, s.ns, "hako-cache")
	s.apply(t, s.ns, s.render(t, overlay{Base: "setup/cache"}))
	s.apply(t, s.ns, s.render(t, overlay{Base: "setup/warmer", Kind: "CronJob", Args: []string{"--image=" + must[string](t)(s.busybox()), s.flags[1]}}))
	s.mustKubectl(t, "", "-n", s.ns, "create", "job", "--from=cronjob/hako-warmer", "warm")
	succeed(t, s.awaitJob(t, s.ns, "warm"))
	place := s.repository(t)
	for _, suffix := range []string{"-first", "-second"} {
		e := s.build(t, overlay{Base: "overlays/cached", Suffix: suffix, Literals: map[string]string{"CONTEXT": place}, Args: []string{"--cache-offline"}})
		if ran := strings.Contains(e.Log, "RUN steps run in"); ran != (suffix == "-first") {
			t.Errorf("%s build: steps ran: %v\n%s", suffix, ran, e.Log)
		}
	}
}

// openshift builds as a user that OpenShift chooses, with the group 0: without a group for volumes, and with one, so that the cache
// on a claim of the group's can be written to.
func (s *shop) openshift(t *testing.T) {
	component := must[string](t)(filepath.Rel(s.newDir(t), filepath.Join(must[string](t)(lab.ModuleRoot()), "deploy/kubernetes/components/openshift")))
	place := s.repository(t)
	for _, c := range []struct {
		base, suffix string
		fields       []string
	}{
		{"overlays/git", "-openshift", []string{"runAsUser"}},
		{"overlays/cached", "-openshift-group", []string{"runAsUser", "fsGroup"}},
	} {
		more := "" // goes on with the patches
		for _, field := range c.fields {
			more += fmt.Sprintf("- target: {kind: Job}\n  patch: |-\n    - {op: add, path: /spec/template/spec/securityContext/%s, value: 1000680000}\n", field)
		}
		more += "components: [" + component + "]\n"
		s.build(t, overlay{Base: c.base, Suffix: c.suffix, Literals: map[string]string{"CONTEXT": place}, More: more})
		if pod := s.mustKubectl(t, "", "-n", s.ns, "get", "pods", "-l", "batch.kubernetes.io/job-name=hako-build"+c.suffix, "-o", "jsonpath={.items[0].spec.securityContext}"); !strings.Contains(pod, `"runAsUser":1000680000`) || strings.Contains(pod, "runAsGroup") {
			t.Errorf("the pod ran with %s", pod)
		}
	}
}

// stdin runs the script that sends an archive to kubectl run.
func (s *shop) stdin(t *testing.T) {
	root := must[string](t)(lab.ModuleRoot())
	ref := s.ref("app:stdin")
	env := append(os.Environ(), "KUBECONFIG="+s.kubeconfig, "HAKO_IMAGE="+s.image("executor"))
	run := func(archive []byte) lab.Result {
		args := append([]string{filepath.Join(root, "deploy/kubernetes/stdin.sh"), s.ns, "--destination=" + ref}, s.flags...)
		return must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: args, Env: env, Stdin: bytes.NewReader(archive)}))
	}
	r := run(s.archive(t))
	if r.ExitCode != 0 || strings.Contains(r.Output, "Warning:") {
		t.Fatalf("exit code %d\n%s", r.ExitCode, r.Output)
	}
	if digest(t, s.private, ref) != s.want {
		t.Errorf("%s is not the image that the command line makes", ref)
	}
	s.files = map[string]string{"Dockerfile": s.files["Dockerfile"] + "RUN exit 42\n", "a/b": ""}
	if r := run(s.archive(t)); r.ExitCode != 42 {
		t.Errorf("a step that ends with 42: exit code %d\n%s", r.ExitCode, r.Output)
	}
}
