package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hako/internal/build"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/registry"
	"hako/internal/submit"
)

// fate is what becomes of a flag of a build when the build runs in a pod.
type fate uint8

const (
	// carried: the pod gets it as it is.
	carried fate = iota + 1
	// here: it is about this machine.
	here
	// packed: the pod gets what it stands for; parcel says how.
	packed
	// whole: it is about all platforms. The pod gets it as it is, unless there is one for each platform: see [submit.Request].Args.
	whole
	// refused: it has no place in a pod.
	refused
	// mounted: it names a directory of the pod, which --pod-template has to mount.
	mounted
)

// fates are those of all flags that work.
func fates() map[string]fate {
	out := map[string]fate{}
	for f, names := range map[fate]string{
		carried: "git target network add-host shm-size destination tag push label image-format compression compression-level " +
			"reproducible rewrite-timestamp single-snapshot squash-all provenance sbom attest insecure insecure-pull insecure-registry skip-tls-verify " +
			"skip-tls-verify-pull skip-tls-verify-registry registry-mirror registry-map skip-default-registry-fallback push-retry image-download-retry " +
			"push-by-digest push-ignore-immutable-tag-errors skip-push-permission-check credential-helpers jobs ignore-path cache no-cache cache-ttl cache-timeout cache-copy-layers " +
			"cache-run-layers no-push-cache explain-cache cache-mounts-size cache-size bases-limit work-dir-size verbosity",
		here:    "digest-file image-name-with-digest-file image-name-tag-with-digest-file metadata-file iidfile kaniko-dir log-format log-timestamp",
		packed:  "output context context-sub-path dockerfile bucket build-arg build-context secret ssh no-push source-date-epoch sign-key registry-certificate registry-client-cert sandbox cache-key-file cache-repo cache-from cache-mounts",
		whole:   "custom-platform platform annotation sign",
		refused: "load tar-path oci-layout-path dryrun check call trace",
		mounted: "cache-dir image cache-offline run-bind",
	} {
		for name := range strings.FieldsSeq(names) {
			out[name] = f
		}
	}
	return out
}

// parcel makes the arguments and files of a pod.
type parcel struct {
	c   *command
	vs  *values
	req *submit.Request
	// several says that there is a pod for each platform.
	several bool
}

func (p *parcel) add(name, value string) { p.req.Args = append(p.req.Args, "--"+name+"="+value) }

// pack fills the request.
func (p *parcel) pack(ctx context.Context) error {
	parts, err := p.req.Parts()
	if err != nil {
		return err
	}
	p.several = len(parts) > 0
	byName := fates()
	for _, f := range flags() {
		v := p.vs.byName[f.name]
		if f.alias != "" || len(v.given) == 0 {
			continue
		}
		switch what := byName[f.name]; what {
		case carried, whole:
			if p.several && what == whole {
				continue
			}
			for _, given := range v.given {
				p.add(f.name, given)
			}
		case refused:
			if !v.isDefault() || f.kind == multiKind {
				return &diag.Error{What: "--" + f.name + " needs this machine, and the build runs in a pod", Hint: "Leave it out, or use hako build."}
			}
		case mounted:
			if len(p.req.Job.Template) == 0 {
				return &diag.Error{What: "--" + f.name + " names what a pod does not have", Hint: "Mount a volume with --pod-template."}
			}
			for _, given := range v.given {
				p.add(f.name, given)
			}
		case here, packed: // those have their own rules
		}
	}
	if len(p.req.Build.Outputs.Exports) > 0 {
		return &diag.Error{What: "--output writes to this machine, and the build runs in a pod", Hint: "Push the image with --destination and fetch it from there, or use hako build."}
	}
	p.environment()
	return errors.Join(p.outputs(), p.dockerfile(ctx), p.caches(), p.contexts(), p.secrets(), p.agents(), p.certificates(), p.keys(), p.credentials())
}

// outputs carries --output. Of several platforms each gets what is said of its image, and not the annotations.
func (p *parcel) outputs() error {
	for _, given := range p.vs.list("output") {
		if p.several {
			var err error
			if given, err = withoutAnnotations(given); err != nil {
				return err
			}
		}
		p.add("output", given)
	}
	return nil
}

// environment carries what variables say.
func (p *parcel) environment() {
	b := &p.req.Build
	for _, name := range slices.Sorted(maps.Keys(b.BuildArgs)) {
		p.add("build-arg", name+"="+b.BuildArgs[name])
	}
	if b.Outputs.NoPush {
		p.add("no-push", "true")
	}
	if b.Sandbox != "" {
		p.add("sandbox", b.Sandbox)
	}
	for variable, name := range map[string]string{"KANIKO_REGISTRY_MAP": "registry-map", "KANIKO_REGISTRY_MIRROR": "registry-mirror"} {
		if v := p.c.getenv(variable); v != "" {
			p.add(name, v)
		}
	}
	if v := p.c.getenv("KANIKO_PRINT_PLAN"); v != "" {
		p.req.Env = append(p.req.Env, build.KeyValue{Key: "KANIKO_PRINT_PLAN", Value: v})
	}
	if !p.req.PassContext {
		return
	}
	if b.ContextSubPath != "" {
		p.add("context-sub-path", b.ContextSubPath)
	}
	for _, name := range []string{"GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD", "GIT_PULL_METHOD"} {
		if v := p.c.getenv(name); v != "" {
			p.req.Env = append(p.req.Env, build.KeyValue{Key: name, Value: v})
		}
	}
}

// file shows the pod a file, and returns where.
func (p *parcel) file(name string, data []byte) string {
	p.req.Files = append(p.req.Files, submit.File{Name: name, Data: data})
	return submit.FilesDir + "/" + name
}

// copy shows the pod a file of this machine.
func (p *parcel) copy(name, path string) (string, error) {
	data, err := os.ReadFile(p.c.absolute(path))
	if err != nil {
		return "", err
	}
	return p.file(name, data), nil
}

// dockerfile names the Dockerfile for the pod. One of the current directory that is not in the context goes with the Secret.
func (p *parcel) dockerfile(ctx context.Context) error {
	name := p.req.Build.Dockerfile
	if name == "-" {
		given, err := contextsource.ReadDockerfile(ctx, p.c.env.Stdin, p.req.Build.Context)
		if err != nil {
			return err
		}
		p.add("dockerfile", p.file("Dockerfile", given.Content))
		p.req.Build.Dockerfile = ""
		return p.bases(given.Content)
	}
	data, err := os.ReadFile(p.c.absolute(name))
	if err != nil || strings.Contains(name, "://") {
		if len(p.vs.list("dockerfile")) > 0 {
			p.add("dockerfile", name)
		}
		if data, err = os.ReadFile(filepath.Join(p.directory(), name)); err == nil && !p.req.PassContext {
			return p.bases(data)
		}
		return nil
	}
	if below, err := filepath.Rel(p.directory(), p.c.absolute(name)); err == nil && !p.req.PassContext && filepath.IsLocal(below) {
		p.add("dockerfile", below)
	} else {
		p.add("dockerfile", p.file("Dockerfile", data))
	}
	return p.bases(data)
}

// directory is that of a local context.
func (p *parcel) directory() string {
	dir := strings.TrimPrefix(p.req.Build.Context, "dir://")
	return filepath.Join(p.c.absolute(dir), p.req.Build.ContextSubPath)
}

// bases adds the images that FROM names as they stand to those that the pod gets credentials for.
func (p *parcel) bases(text []byte) error {
	for _, name := range submit.Bases(text) {
		p.trust(name)
	}
	return nil
}

// trust has the pod get credentials for a reference, if it is one.
func (p *parcel) trust(reference string) {
	if _, err := registry.ParseReference(reference); err == nil && reference != "scratch" {
		p.req.CredentialsFor = append(p.req.CredentialsFor, reference)
	}
}

// caches names the caches. A directory of this machine is none of the pod's.
func (p *parcel) caches() error {
	for _, name := range []string{"cache-repo", "cache-from", "cache-mounts"} {
		for _, place := range p.vs.list(name) {
			if strings.HasPrefix(place, "oci:") && len(p.req.Job.Template) == 0 {
				return &diag.Error{What: "--" + name + " " + place + " is a directory, which a pod does not have", Hint: "Keep the cache in a registry or a bucket, or mount a volume with --pod-template."}
			}
			p.add(name, place)
			p.trust(place)
		}
	}
	return nil
}

// contexts names the further contexts, which the pod has to get by itself.
func (p *parcel) contexts() error {
	for _, kv := range p.req.Build.NamedContexts {
		image, isImage := strings.CutPrefix(kv.Value, "docker-image://")
		if isImage {
			p.trust(image)
		}
		if strings.HasPrefix(kv.Value, "oci-layout://") {
			return &diag.Error{What: "--build-context " + kv.Key + "=" + kv.Value + " is on this machine, and the build runs in a pod", Hint: "Push the image to a registry, and name it as docker-image://…"}
		}
		if !isImage && !isRemote(kv.Value) && !strings.HasPrefix(kv.Value, "target:") {
			p.req.Contexts = append(p.req.Contexts, kv)
			continue
		}
		p.add("build-context", kv.Key+"="+kv.Value)
	}
	return nil
}

// secrets puts the build's secrets into the Secret.
func (p *parcel) secrets() error {
	for i, s := range p.req.Build.Secrets {
		name := fmt.Sprintf("secret-%d", i)
		place := ""
		if s.Path == "" {
			place = p.file(name, []byte(string(s.Value)))
		} else {
			var err error
			if place, err = p.copy(name, s.Path); err != nil {
				return &diag.Error{What: "read the secret " + s.ID, Cause: err, Hint: "Name a file that exists with --secret id=" + s.ID + ",src=FILE."}
			}
		}
		p.add("secret", "id="+s.ID+",src="+place)
	}
	return nil
}

// certificates puts certificates and keys for registries into the Secret.
func (p *parcel) certificates() error {
	for i, kv := range p.req.Build.Registry.Certificates {
		place, err := p.copy(fmt.Sprintf("authority-%d", i), kv.Value)
		if err != nil {
			return &diag.Error{What: "--registry-certificate", Cause: err}
		}
		p.add("registry-certificate", kv.Key+"="+place)
	}
	for i, kv := range p.req.Build.Registry.ClientCertificates {
		certificate, key, _ := strings.Cut(kv.Value, ",")
		one, err := p.copy(fmt.Sprintf("certificate-%d", i), certificate)
		two, kerr := p.copy(fmt.Sprintf("key-%d", i), key)
		if err := errors.Join(err, kerr); err != nil {
			return &diag.Error{What: "--registry-client-cert", Cause: err}
		}
		p.add("registry-client-cert", kv.Key+"="+one+","+two)
	}
	return nil
}

// keys puts the keys of caches and signatures into the Secret.
func (p *parcel) keys() error {
	for _, name := range []string{"sign-key", "cache-key-file"} {
		given := p.vs.str(name)
		if given == "" || p.several && name == "sign-key" { // then the index is signed, here
			continue
		}
		if variable, ok := strings.CutPrefix(given, "env://"); ok {
			p.add(name, p.file(name, []byte(p.c.getenv(variable))))
			continue
		}
		place, err := p.copy(name, given)
		if err != nil {
			return &diag.Error{What: "--" + name, Cause: err}
		}
		p.add(name, place)
	}
	if password, ok := p.c.vars["COSIGN_PASSWORD"]; ok && (p.vs.str("sign-key") != "" && !p.several || p.vs.str("cache-key-file") != "") {
		p.req.Env = append(p.req.Env, build.KeyValue{Key: "COSIGN_PASSWORD", Value: password})
	}
	return nil
}

// credentials lists the repositories that the pod gets credentials for: those that flags name, and no others.
func (p *parcel) credentials() error {
	b := &p.req.Build
	for _, reference := range slices.Concat(b.Outputs.Destinations, b.Outputs.Repositories, b.Bases.Images) {
		p.trust(reference)
	}
	for _, m := range b.Registry.Mirrors {
		p.trust(strings.TrimSuffix(m.Value, "/") + "/any")
	}
	if place, ok := strings.CutPrefix(b.Context, "oci://"); ok && p.req.PassContext {
		p.trust(place)
	}
	for _, text := range p.vs.list("credentials-for") {
		if !strings.Contains(text, "/") {
			text += "/any"
		}
		if _, err := registry.ParseReference(text); err != nil {
			return fmt.Errorf("--credentials-for: %w", err)
		}
		p.trust(text)
	}
	return nil
}
