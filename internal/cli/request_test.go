package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"hako/internal/build"
)

// parse runs args through the real flag set and returns the request.
func parse(t *testing.T, environ, args []string) (build.Request, *values, error) {
	t.Helper()
	c := &command{env: Env{Version: "v1"}, vars: map[string]string{}, vs: newValues()}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		c.vars[k] = v
	}
	set := pflag.NewFlagSet("executor", pflag.ContinueOnError)
	c.vs.register(set)
	if err := set.Parse(args); err != nil {
		return build.Request{}, c.vs, err
	}
	req, err := c.request(c.vs, set.Args())
	return req, c.vs, err
}

// defaults is the request of "--no-push" alone.
func defaults(change func(*build.Request)) build.Request {
	r := build.Request{
		Context: "/workspace/", Dockerfile: "Dockerfile", Compression: "gzip", BuildArgs: map[string]string{},
		Outputs:  build.Outputs{NoPush: true},
		Bases:    build.Bases{LimitBytes: 20 << 30},
		Cache:    build.Cache{TTL: 336 * time.Hour, Patience: 10 * time.Second},
		Registry: build.Registry{DockerConfigDirs: []string{"/kaniko/.docker"}, UserAgent: "hako/v1"},
	}
	if change != nil {
		change(&r)
	}
	return r
}

func TestRequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		environ []string
		args    []string
		want    func(*build.Request)
	}{
		{name: "nothing but --no-push"},
		{
			name: "where files come from",
			args: []string{"-c", "dir:///src", "--context-sub-path=app", "-f", "Dockerfile.dev", "--target", "run", "--kaniko-dir=/state"},
			want: func(r *build.Request) {
				r.Context, r.ContextSubPath, r.Dockerfile, r.Target, r.WorkDir = "dir:///src", "app", "Dockerfile.dev", "run", "/state"
			},
		},
		{
			name: "values of repeated flags are verbatim",
			args: []string{"--destination=a,b", "-d", "c", "-t", "e:1", "--label", "k=v=w", "--label=k2=a,b"},
			want: func(r *build.Request) {
				r.Outputs.Destinations = []string{"a,b", "c", "e:1"}
				r.Labels = []build.KeyValue{{Key: "k", Value: "v=w"}, {Key: "k2", Value: "a,b"}}
			},
		},
		{
			name:    "build arguments",
			environ: []string{"FROM_ENV=yes", "HOME=/home/u"},
			args:    []string{"--build-arg", "A=1", "--build-arg=A=2", "--build-arg", "FROM_ENV", "--build-arg", "UNSET", "--build-arg", "E="},
			want: func(r *build.Request) {
				r.BuildArgs = map[string]string{"A": "2", "FROM_ENV": "yes", "UNSET": "", "E": ""}
				r.Registry.DockerConfigDirs = []string{"/home/u/.docker", "/kaniko/.docker"}
			},
		},
		{
			name:    "secrets",
			environ: []string{"TOKEN=t0ken", "both=b0th"},
			args: []string{
				"--secret=id=a,src=/file", "--secret", "ID=b,env=TOKEN", "--secret=type=env,id=c,source=TOKEN", "--secret=id=both",
				"--secret=id=d", "--secret=id=e,src=/file,env=UNSET", `--secret=type=file,id=f,"src=/a,b"`,
			},
			want: func(r *build.Request) {
				r.Secrets = []build.Secret{
					{ID: "a", Path: "/file"}, {ID: "b", Value: "t0ken"}, {ID: "c", Value: "t0ken"}, {ID: "both", Value: "b0th"},
					{ID: "d", Path: "d"}, {ID: "e"}, {ID: "f", Path: "/a,b"},
				}
			},
		},
		{
			name:    "ssh",
			environ: []string{"SSH_AUTH_SOCK=/agent"},
			args:    []string{"--ssh=default", "--ssh", "k=/one,/two", "--ssh=r=/sock,raw=true", "--ssh==/other"},
			want: func(r *build.Request) {
				r.Agents = []build.Agent{
					{ID: "default", Paths: []string{"/agent"}}, {ID: "k", Paths: []string{"/one", "/two"}},
					{ID: "r", Paths: []string{"/sock"}, Raw: true}, {ID: "default", Paths: []string{"/other"}},
				}
			},
		},
		{
			name: "network", args: []string{"--network=none", "--allow=network.host"},
			want: func(r *build.Request) { r.Network = "none" },
		},
		{
			name:    "environment",
			environ: []string{"KANIKO_DIR=/k", "DOCKER_CONFIG=/kaniko/.docker/", "UPSTREAM_CLIENT_TYPE=ci", "HOME=/root"},
			want: func(r *build.Request) {
				r.WorkDir = "/k"
				r.Registry.DockerConfigDirs, r.Registry.UserAgent = []string{"/kaniko/.docker/"}, "hako/v1,ci"
			},
		},
		{
			name: "a variable overrides --no-push", environ: []string{"KANIKO_NO_PUSH=false"}, args: []string{"-d", "x"},
			want: func(r *build.Request) { r.Outputs.NoPush, r.Outputs.Destinations = false, []string{"x"} },
		},
		{
			name: "registries",
			args: []string{"--insecure", "--insecure-pull=true", "--insecure-registry", "a:1", "--insecure-registry", "b", "--skip-tls-verify", "--skip-tls-verify-registry=c", "--push-retry", "3", "--skip-push-permission-check"},
			want: func(r *build.Request) {
				r.Registry.Insecure, r.Registry.InsecurePull, r.Registry.InsecureRegistries = true, true, []string{"a:1", "b"}
				r.Registry.SkipTLSVerify, r.Registry.SkipTLSVerifyPull, r.Registry.SkipTLSVerifyRegistries = true, true, []string{"c"}
				r.Outputs.PushRetries, r.Outputs.SkipPushPermissionCheck = 3, true
			},
		},
		{
			name:    "mirrors and certificates",
			environ: []string{"KANIKO_REGISTRY_MIRROR=m2/p", "KANIKO_REGISTRY_MAP=quay.io=q2; ghcr.io = g"},
			args: []string{
				"--registry-map=quay.io=q1;docker.io=d", "--registry-mirror=m1", "--skip-default-registry-fallback",
				"--registry-certificate=a=/a.pem", "--registry-client-cert", "a=/c.pem,/k.pem",
			},
			want: func(r *build.Request) {
				r.Registry.Mirrors = []build.KeyValue{
					{Key: "quay.io", Value: "q1"}, {Key: "docker.io", Value: "d"}, {Key: "quay.io", Value: "q2"}, {Key: "ghcr.io", Value: "g"},
					{Key: "docker.io", Value: "m1"}, {Key: "docker.io", Value: "m2/p"},
				}
				r.Registry.OnlyMirrors = true
				r.Registry.Certificates = []build.KeyValue{{Key: "a", Value: "/a.pem"}}
				r.Registry.ClientCertificates = []build.KeyValue{{Key: "a", Value: "/c.pem,/k.pem"}}
			},
		},
		{
			name: "cache", args: []string{"--cache=true", "--cache-repo", "r/c", "--cache-ttl=6h", "--cache-timeout=5s", "--cache-copy-layers", "--cache-run-layers=false", "--no-push-cache", "--cache-from=oci:d", "--cache-from=q"},
			want: func(r *build.Request) {
				r.Cache = build.Cache{Enabled: true, Repository: "r/c", TTL: 6 * time.Hour, Patience: 5 * time.Second, Copies: true, SkipRuns: true, ReadOnly: true, Sources: []string{"oci:d", "q"}}
				r.Bases.Dir, r.Bases.TTL = "/cache", 6*time.Hour
			},
		},
		{
			name:    "credentials",
			environ: []string{"DOCKER_AUTH_CONFIG={}", "XDG_RUNTIME_DIR=/run/user/1", "XDG_CONFIG_HOME=/c"},
			args:    []string{"--credential-helpers=ecr", "--credential-helpers", "env,acr"},
			want: func(r *build.Request) {
				r.Registry.AuthConfig, r.Registry.AuthFiles = "{}", []string{"/run/user/1/containers/auth.json", "/c/containers/auth.json"}
				r.Registry.CredentialHelpers = []string{"ecr", "env", "acr"}
			},
		},
		{
			name: "no helpers", environ: []string{"REGISTRY_AUTH_FILE=/auth.json", "XDG_RUNTIME_DIR=/run/user/1"}, args: []string{"--credential-helpers="},
			want: func(r *build.Request) {
				r.Registry.AuthFiles, r.Registry.CredentialHelpers = []string{"/auth.json"}, []string{""}
			},
		},
		{
			name: "old spellings", args: []string{"--tarPath", "x.tar", "--customPlatform=linux/arm64", "--snapshotMode=redo"},
			want: func(r *build.Request) { r.Outputs.TarPath, r.Platforms = "x.tar", []string{"linux/arm64"} },
		},
		{
			name: "habits of docker", args: []string{"--no-cache", "--add-host", "db:10.0.0.1", "--add-host=six:[::1]", "--shm-size=64m", "--file", "D", "--platform=linux/amd64", "."},
			want: func(r *build.Request) {
				r.NoCache, r.ShmSizeBytes, r.Dockerfile, r.Platforms, r.Context = true, 64<<20, "D", []string{"linux/amd64"}, "."
				r.ExtraHosts = []build.KeyValue{{Key: "db", Value: "10.0.0.1"}, {Key: "six", Value: "::1"}}
			},
		},
		{
			name: "flags without effect", args: []string{
				"--force", "--cleanup", "--snapshot-mode=time", "--use-new-run=true", "--compressed-caching=false", "--skip-unused-stages",
				"--ignore-var-run=false", "--cache=false", "--git", "single-branch=true",
				"--single-snapshot=false", "--image-format=", "--reproducible=0", "--image-fs-extract-retry", "5",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := parse(t, test.environ, append([]string{"--no-push"}, test.args...))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(defaults(test.want), got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutputsNeedAPlace(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args   []string
		noPush bool
		err    string
	}{
		{args: nil, err: "you must provide --destination, or use --no-push"},
		{args: []string{"--tar-path=x"}, noPush: true},
		{args: []string{"--oci-layout-path=x"}, noPush: true},
		{args: []string{"--dryrun"}},
		{args: []string{"--image-name-with-digest-file=f", "--no-push"}, noPush: true, err: "you must provide --destination if setting --image-name-with-digest-file or --image-name-tag-with-digest-file"},
	} {
		got, _, err := parse(t, nil, test.args)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != test.err || got.Outputs.NoPush != test.noPush {
			t.Errorf("%q: no push %v, error %q; want %v, %q", test.args, got.Outputs.NoPush, text, test.noPush, test.err)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		environ, args []string
		want          string
	}{
		{args: []string{"--registry-map=a"}, want: `invalid argument "a" for "--registry-map" flag: expected key=value, got "a"`},
		{args: []string{"--secret=id=x,value=s3cr3t"}, want: `--secret: unknown key "value"`},
		{args: []string{"--secret=s3cr3t"}, want: "--secret: a field is not KEY=VALUE"},
		{args: []string{`--secret=id="s3cr3t`}, want: "--secret: it cannot be split at its commas"},
		{args: []string{"--secret=src=x"}, want: "--secret: the id is missing"},
		{args: []string{"--secret=id=x,type=s3cr3t"}, want: "--secret: the type is neither file nor env"},
		{args: []string{"--ssh=x=/sock,raw=maybe"}, want: "--ssh x: raw=maybe is neither true nor false"},
		{args: []string{"--snapshot-mode=fast"}, want: `invalid argument "fast" for "--snapshot-mode" flag: must be one of full, redo, time`},
		{args: []string{"--image-format=tar"}, want: `invalid argument "tar" for "--image-format" flag: must be one of docker, oci`},
		{args: []string{"--insecure=maybe"}, want: `invalid argument "maybe" for "--insecure" flag: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{args: []string{"--push-retry=x"}, want: `invalid argument "x" for "--push-retry" flag: strconv.ParseInt: parsing "x": invalid syntax`},
		{args: []string{"--push-retry=-1"}, want: "--push-retry must not be negative"},
		{args: []string{"--cache-ttl=1"}, want: `invalid argument "1" for "--cache-ttl" flag: time: missing unit in duration "1"`},
		{args: []string{"--add-host=x"}, want: `--add-host "x" is not NAME:ADDRESS`},
		{args: []string{"--shm-size=big"}, want: `--shm-size: "big" is not a size`},
		{args: []string{"-c", "/a", "/b"}, want: "the context is given twice: --context /a and /b"},
		{environ: []string{"KANIKO_NO_PUSH=maybe"}, want: `KANIKO_NO_PUSH="maybe" is not a bool`},
	} {
		_, _, err := parse(t, test.environ, append([]string{"--no-push"}, test.args...))
		if err == nil || err.Error() != test.want {
			t.Errorf("%q: error %v, want %q", test.args, err, test.want)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"": 0, "5": 5, "5b": 5, "1k": 1 << 10, "2KB": 2 << 10, "64m": 64 << 20, "1G": 1 << 30} {
		if got, err := sizeBytes(text); err != nil || got != want {
			t.Errorf("sizeBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"-1", "k", "1kk", "99999999999g"} {
		if got, err := sizeBytes(text); err == nil {
			t.Errorf("sizeBytes(%q) = %d, want an error", text, got)
		}
	}
}
