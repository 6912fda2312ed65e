package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hako/internal/build"
	"hako/internal/diag"
)

// request turns the flags, the one operand of "hako build" and the environment into a build.Request.
func (c *command) request(vs *values, operands []string) (build.Request, error) {
	req := build.Request{
		Context: contextPlace(vs), ContextSubPath: vs.str("context-sub-path"), Dockerfile: vs.str("dockerfile"),
		DryRun: vs.bool("dryrun"), NoCache: vs.bool("no-cache"),
		WorkDir:      firstSet(vs.str("kaniko-dir"), c.getenv("KANIKO_DIR")),
		Jobs:         vs.int("jobs"),
		Sandbox:      c.sandbox(vs),
		BuildArgs:    c.buildArgs(vs.list("build-arg")),
		Labels:       pairs(filled(vs.list("label")), "="),
		Reproducible: vs.bool("reproducible"), IgnorePaths: vs.list("ignore-path"),
		NamedContexts: pairs(vs.list("build-context"), "="),
		Registry:      c.registry(vs),
	}
	if len(operands) > 0 {
		if len(vs.list("context")) > 0 {
			return build.Request{}, fmt.Errorf("the context is given twice: --context %s and %s", req.Context, operands[0])
		}
		req.Context = operands[0]
	}
	var err error
	var errs []error
	if err := c.epoch(vs, req.BuildArgs); err != nil {
		errs = append(errs, err)
	}
	req.Target, req.AlsoTargets = targets(vs.list("target"))
	if req.Platforms, err = platforms(vs.str("custom-platform"), vs.list("platform")); err != nil {
		errs = append(errs, err)
	}
	if req.ExtraHosts, err = extraHosts(vs.list("add-host")); err != nil {
		errs = append(errs, err)
	}
	if req.ShmSizeBytes, err = sizeBytes(vs.str("shm-size")); err != nil {
		errs = append(errs, fmt.Errorf("--shm-size: %w", err))
	}
	req.Cache, req.CacheMounts, err = cacheOf(vs)
	errs = append(errs, err, c.workDirSize(vs, &req), c.mounts(vs, &req), takeGit(vs, &req), takeBases(vs, &req), takeBinds(vs, &req))
	plan, err := c.outputPlan(vs)
	if err != nil {
		return req, errors.Join(append(errs, err)...)
	}
	if req.PrintPlan, err = c.printPlan(plan); err != nil {
		errs = append(errs, err)
	}
	req.Squash = squash(vs)
	if err := plan.request(vs, &req); err != nil {
		errs = append(errs, err)
	}
	if req.Outputs, err = c.outputs(vs, plan); err != nil {
		errs = append(errs, err)
	}
	if err := c.attestAndSign(vs, &req); err != nil {
		errs = append(errs, err)
	}
	return req, errors.Join(errs...)
}

// printPlan says whether the plan is to be printed before the build, where the result of p does not need the place.
func (c *command) printPlan(p *outputPlan) (bool, error) {
	const name = "KANIKO_PRINT_PLAN"
	yes, err := c.boolVariable(name, false)
	if yes && p.toStdout() {
		return false, fmt.Errorf("%s: standard output takes the result already", name)
	}
	return yes, err
}

func cacheOf(vs *values) (build.Cache, build.CacheMounts, error) {
	out := build.Cache{
		Enabled: vs.bool("cache"), Repository: vs.str("cache-repo"), Sources: vs.list("cache-from"), TTL: vs.duration("cache-ttl"), Patience: vs.duration("cache-timeout"),
		ReadOnly: vs.bool("no-push-cache"), Explain: vs.bool("explain-cache"), SkipRuns: !vs.bool("cache-run-layers"), Copies: vs.bool("cache-copy-layers"),
		SkipCopies: len(vs.list("cache-copy-layers")) > 0 && !vs.bool("cache-copy-layers"),
	}
	mounts := build.CacheMounts{Place: vs.str("cache-mounts")}
	for name, size := range map[string]*int64{"cache-size": &out.SizeBytes, "cache-mounts-size": &mounts.SizeBytes} {
		var err error
		if *size, err = sizeBytes(vs.str(name)); err != nil {
			return out, mounts, fmt.Errorf("--%s: %w", name, err)
		}
	}
	return out, mounts, nil
}

// workDirSize reads how much room a build may take.
func (c *command) workDirSize(vs *values, req *build.Request) (err error) {
	if req.WorkDirBytes, err = sizeBytes(firstSet(vs.str("work-dir-size"), c.getenv("HAKO_WORK_DIR_SIZE"))); err != nil {
		return fmt.Errorf("--work-dir-size: %w", err)
	}
	return nil
}

// takeBases reads the directory of base images: kaniko's, which needs --cache, or one that was asked for.
func takeBases(vs *values, req *build.Request) error {
	b := build.Bases{Offline: vs.bool("cache-offline"), Images: vs.list("image")}
	var err error
	if b.LimitBytes, err = sizeBytes(vs.str("bases-limit")); err != nil {
		return fmt.Errorf("--bases-limit: %w", err)
	}
	if vs.bool("cache") && !vs.bool("no-cache") || len(vs.list("cache-dir")) > 0 || b.Offline || len(b.Images) > 0 {
		b.Dir, b.TTL = vs.str("cache-dir"), vs.duration("cache-ttl")
	}
	req.Bases = b
	return nil
}

func squash(vs *values) build.Squash {
	switch {
	case vs.bool("squash-all"):
		return build.SquashAll
	case vs.bool("single-snapshot"):
		return build.SquashNew
	}
	return build.SquashNone
}

// sandbox is the flag, or else the environment's choice. The default, auto, is nothing.
func (c *command) sandbox(vs *values) string {
	name := vs.str("sandbox")
	if len(vs.list("sandbox")) == 0 {
		name = firstSet(c.getenv("HAKO_SANDBOX"), name)
	}
	if name == "auto" {
		return ""
	}
	return name
}

func firstSet(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// buildArgs resolves "NAME=VALUE", and "NAME" from the environment: unset is empty, as in kaniko.
func (c *command) buildArgs(given []string) map[string]string {
	args := map[string]string{}
	for _, g := range given {
		name, v, ok := strings.Cut(g, "=")
		if !ok {
			v = c.getenv(name)
		}
		args[name] = v
	}
	return args
}

// epoch makes --source-date-epoch, or else the variable SOURCE_DATE_EPOCH, a build argument.
func (c *command) epoch(vs *values, args map[string]string) error {
	const name = "SOURCE_DATE_EPOCH"
	given, isGiven := args[name]
	if list := vs.list("source-date-epoch"); len(list) > 0 {
		text := vs.str("source-date-epoch")
		if isGiven && given != text {
			return fmt.Errorf("--source-date-epoch=%s and --build-arg %s=%s differ", text, name, given)
		}
		args[name] = text
		return nil
	}
	if text, ok := c.vars[name]; ok && !isGiven {
		args[name] = text
	}
	return nil
}

// filled are the values that are not empty, as a template that is not filled in leaves them.
func filled(given []string) []string {
	return slices.DeleteFunc(slices.Clone(given), func(s string) bool { return s == "" })
}

func pairs(given []string, sep string) []build.KeyValue {
	var out []build.KeyValue
	for _, g := range given {
		k, v, _ := strings.Cut(g, sep)
		out = append(out, build.KeyValue{Key: k, Value: v})
	}
	return out
}

// targets are the stage whose image is the result, the last if there is none, and those that are built besides:
// a list of the live fork's, repeated or separated by commas.
func targets(given []string) (string, []string) {
	var names []string
	for _, g := range given {
		for _, name := range strings.Split(g, ",") {
			if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	switch len(names) {
	case 0:
		return "", nil
	case 1:
		return names[0], nil
	}
	return names[0], names[1:]
}

// platforms are kaniko's one (custom), or docker's list (given), which is repeated or separated by commas.
func platforms(custom string, given []string) ([]string, error) {
	var names []string
	for _, g := range given {
		for _, p := range strings.Split(g, ",") {
			if p = strings.TrimSpace(p); p != "" {
				names = append(names, p)
			}
		}
	}
	switch {
	case custom == "":
		return names, nil
	case len(names) > 0:
		return nil, fmt.Errorf("the platform is given twice: --custom-platform %s and --platform %s", custom, strings.Join(names, ","))
	}
	return []string{custom}, nil
}

// extraHosts reads NAME:ADDRESS and NAME=ADDRESS; an IPv6 address may stand in brackets.
func extraHosts(given []string) ([]build.KeyValue, error) {
	var out []build.KeyValue
	for _, g := range given {
		i := strings.IndexAny(g, ":=")
		if i <= 0 || i == len(g)-1 {
			return nil, fmt.Errorf("--add-host %q is not NAME:ADDRESS", g)
		}
		out = append(out, build.KeyValue{Key: g[:i], Value: strings.Trim(g[i+1:], "[]")})
	}
	return out, nil
}

// takeBinds reads the SRC[:DST][:ro|:rw] of --run-bind.
func takeBinds(vs *values, req *build.Request) error {
	for _, g := range vs.list("run-bind") {
		var r build.RunBind
		parts := strings.Split(g, ":")
		if n := len(parts); n > 1 && (parts[n-1] == "ro" || parts[n-1] == "rw") {
			r.ReadOnly = parts[n-1] == "ro"
			parts = parts[:n-1]
		}
		if len(parts) > 2 || parts[0] == "" || parts[len(parts)-1] == "" {
			return &diag.Error{What: fmt.Sprintf("--run-bind %q is not SRC[:DST][:ro]", g), Hint: "Name a file or directory: --run-bind /secrets/token:/run/token:ro."}
		}
		if r.Source = parts[0]; len(parts) == 1 && !filepath.IsAbs(r.Source) {
			return &diag.Error{What: fmt.Sprintf("--run-bind %s: it is not said where a step sees a relative path", g), Hint: "Add an absolute path after a colon."}
		}
		r.Target = parts[len(parts)-1]
		req.RunBinds = append(req.RunBinds, r)
	}
	return nil
}

// sizeBytes reads docker's sizes: a number with an optional b, k, m or g; empty is 0.
func sizeBytes(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	text := strings.TrimSuffix(strings.ToLower(s), "b")
	if unit, ok := strings.CutSuffix(text, "i"); ok && strings.ContainsAny(unit, "kmg") { // GiB, or Kubernetes' Gi
		text = unit
	}
	shift := 0
	if i := strings.IndexAny(text, "kmg"); i >= 0 && i == len(text)-1 {
		shift = 10 * (1 + strings.IndexByte("kmg", text[i]))
		text = text[:i]
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size", s)
	}
	return n << shift, nil
}

// registry says how to reach registries. --skip-tls-verify is about pulls too, as in kaniko.
func (c *command) registry(vs *values) build.Registry {
	r := build.Registry{
		Insecure: vs.bool("insecure"), InsecurePull: vs.bool("insecure-pull"), InsecureRegistries: vs.list("insecure-registry"),
		SkipTLSVerify: vs.bool("skip-tls-verify"), SkipTLSVerifyRegistries: vs.list("skip-tls-verify-registry"),
		SkipTLSVerifyPull: vs.bool("skip-tls-verify-pull") || vs.bool("skip-tls-verify"),
		Certificates:      pairs(vs.list("registry-certificate"), "="), ClientCertificates: pairs(vs.list("registry-client-cert"), "="),
		PullRetries: max(0, vs.int("image-download-retry")),
		Mirrors:     c.mirrors(vs), OnlyMirrors: vs.bool("skip-default-registry-fallback"),
		UserAgent: "hako/" + c.env.Version,
	}
	if given := vs.list("credential-helpers"); len(given) > 0 {
		r.CredentialHelpers = strings.Split(strings.Join(given, ","), ",")
	}
	r.AuthConfig, r.AuthFiles = c.getenv("DOCKER_AUTH_CONFIG"), c.authFiles()
	if client := c.getenv("UPSTREAM_CLIENT_TYPE"); client != "" {
		r.UserAgent += "," + client
	}
	switch config, home := c.getenv("DOCKER_CONFIG"), c.getenv("HOME"); {
	case config != "":
		r.DockerConfigDirs = append(r.DockerConfigDirs, config)
	case home != "":
		r.DockerConfigDirs = append(r.DockerConfigDirs, filepath.Join(home, ".docker"))
	}
	if kaniko := "/kaniko/.docker"; len(r.DockerConfigDirs) == 0 || filepath.Clean(r.DockerConfigDirs[0]) != kaniko {
		r.DockerConfigDirs = append(r.DockerConfigDirs, kaniko)
	}
	return r
}

// mirrors are the maps of --registry-map and KANIKO_REGISTRY_MAP, and then, for Docker Hub, --registry-mirror
// and KANIKO_REGISTRY_MIRROR.
func (c *command) mirrors(vs *values) []build.KeyValue {
	var out []build.KeyValue
	for _, given := range append(vs.list("registry-map"), c.getenv("KANIKO_REGISTRY_MAP")) {
		for _, pair := range strings.Split(given, ";") {
			if from, to, ok := strings.Cut(pair, "="); ok {
				out = append(out, build.KeyValue{Key: strings.TrimSpace(from), Value: strings.TrimSpace(to)})
			}
		}
	}
	for _, to := range append(vs.list("registry-mirror"), c.getenv("KANIKO_REGISTRY_MIRROR")) {
		if to != "" {
			out = append(out, build.KeyValue{Key: "docker.io", Value: to})
		}
	}
	return out
}

// authFiles are where podman and its family keep credentials, as go-containerregistry's default keychain looks for them.
func (c *command) authFiles() []string {
	if file := c.getenv("REGISTRY_AUTH_FILE"); file != "" {
		return []string{file}
	}
	var out []string
	for _, v := range [...][2]string{{"XDG_RUNTIME_DIR", "containers/auth.json"}, {"XDG_CONFIG_HOME", "containers/auth.json"}} {
		if dir := c.getenv(v[0]); dir != "" {
			out = append(out, filepath.Join(dir, v[1]))
		}
	}
	return out
}

// contextPlace is --context, or what --bucket stands for: a bucket of Google Cloud Storage, or what has a scheme. A context
// that is a directory comes before a bucket, as in kaniko.
func contextPlace(vs *values) string {
	place, bucket := vs.str("context"), vs.str("bucket")
	switch {
	case bucket == "" || len(vs.list("context")) > 0 && place != "" && !strings.Contains(place, "://"):
		return place
	case strings.Contains(bucket, "://"):
		return bucket
	}
	return "gs://" + bucket
}
