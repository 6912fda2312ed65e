package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// variable is one row of the environment: a variable that hako looks at, or that kaniko does.
type variable struct {
	// name may end in "*".
	name string
	// help is what it does; why, in its place, why it has no effect.
	help, why string
	// forks says who else has it, as in flag.
	forks string
}

const whyTraceFile = "--trace writes where the time went to a file, and nothing is sent to anybody"

// environment is the whole environment of "hako build" and of "executor".
func environment() []variable {
	return slices.Concat(builderVariables(), accessVariables(), idleVariables())
}

func builderVariables() []variable {
	return []variable{
		{name: "KANIKO_DIR", help: "as --kaniko-dir", forks: "GCO"},
		{name: "KANIKO_NO_PUSH", help: "a bool that wins over --no-push", forks: "GCO"},
		{name: "KANIKO_REGISTRY_MIRROR", help: "one more --registry-mirror", forks: "GCO"},
		{name: "KANIKO_REGISTRY_MAP", help: "one more --registry-map", forks: "GCO"},
		{name: "KANIKO_PRINT_PLAN", help: "a bool: print the plan before the build, to standard output", forks: "O"},
		{name: "BUILDER_OUTPUT", help: "directory that gets a file images, with a JSON line for each pushed image (Google Cloud Build)", forks: "GCO"},
		{name: "UPSTREAM_CLIENT_TYPE", help: "text that is added to the user agent", forks: "GCO"},
		{name: "HAKO_WORK_DIR_SIZE", help: "as --work-dir-size", forks: "H"},
		{name: "HAKO_SANDBOX", help: "as --sandbox", forks: "H"},
		{name: "SOURCE_DATE_EPOCH", help: "as --source-date-epoch", forks: "D"},
		{name: "SSH_AUTH_SOCK", help: "the agent of --ssh default", forks: "D"},
		{name: "COSIGN_PASSWORD", help: "the password of --sign-key", forks: "H"},
		{name: "NO_COLOR", help: "log without color, if --log-format does not say (no-color.org)", forks: "H"},
		{name: "TMPDIR", help: "where state goes, if not to /kaniko", forks: "H"},
	}
}

func accessVariables() []variable {
	return []variable{
		{name: "DOCKER_CONFIG", help: "directory with docker's config.json", forks: "GCO"},
		{name: "DOCKER_AUTH_CONFIG", help: "the text of a config.json, asked before all files", forks: "O"},
		{name: "REGISTRY_AUTH_FILE", help: "a file of podman's with credentials, asked after docker's", forks: "GCO"},
		{name: "XDG_RUNTIME_DIR", help: "where podman's credentials are, in containers/auth.json", forks: "GCO"},
		{name: "XDG_CONFIG_HOME", help: "likewise", forks: "GCO"},
		{name: "KANIKO_*_USER", help: "the user for a registry, for the helper env: the host in capitals, with _ for . and -", forks: "O"},
		{name: "KANIKO_*_PASSWORD", help: "likewise its password", forks: "O"},
		{name: "CI_REGISTRY", help: "the registry that the helper gitlab is for", forks: "GCO"},
		{name: "CI_REGISTRY_USER", help: "likewise its user", forks: "GCO"},
		{name: "CI_REGISTRY_PASSWORD", help: "likewise its password", forks: "GCO"},
		{name: "AWS_*", help: "credentials and region of Amazon's clouds, as their tools take them", forks: "GCO"},
		{name: "GOOGLE_APPLICATION_CREDENTIALS", help: "a file with credentials of Google's cloud", forks: "GCO"},
		{name: "AZURE_*", help: "credentials of Azure: AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT_ID, AZURE_ENVIRONMENT", forks: "GCO"},
		{name: "AZURE_STORAGE_ACCESS_KEY", help: "the key of the Azure storage account of contexts and the cache", forks: "GCO"},
		{name: "AZURE_STORAGE_KEY", help: "likewise, as Azure's tools call it", forks: "H"},
		{name: "AZURE_STORAGE_SAS_TOKEN", help: "a shared access signature for Azure's storage", forks: "H"},
		{name: "AZURE_STORAGE_SERVICE_ENDPOINT", help: "the address of a storage that speaks as Azure's does, with the account in it", forks: "H"},
		{name: "STORAGE_EMULATOR_HOST", help: "the address of a storage that speaks as Google's does; it gets no credentials", forks: "H"},
		{name: "S3_ENDPOINT", help: "the address of a storage that speaks S3, for contexts and the cache", forks: "GCO"},
		{name: "S3_FORCE_PATH_STYLE", help: "true: that storage has buckets in the path", forks: "GCO"},
		{name: "GIT_TOKEN", help: "a token for git contexts", forks: "GCO"},
		{name: "GIT_USERNAME", help: "a user for git contexts", forks: "GCO"},
		{name: "GIT_PASSWORD", help: "likewise the password", forks: "GCO"},
		{name: "GIT_PULL_METHOD", help: "https or http, for git:// contexts", forks: "GCO"},
		{name: "HTTP_PROXY", help: "a proxy for the builder; steps get it only by --build-arg HTTP_PROXY", forks: "GCO"},
		{name: "HTTPS_PROXY", help: "likewise", forks: "GCO"},
		{name: "NO_PROXY", help: "hosts that are reached without a proxy", forks: "GCO"},
		{name: "SSL_CERT_DIR", help: "directories of authorities that the builder trusts; steps trust those of their image", forks: "GCO"},
		{name: "SSL_CERT_FILE", help: "a file of authorities that the builder trusts", forks: "H"},
	}
}

func idleVariables() []variable {
	return []variable{
		{name: "FF_KANIKO_*", why: whyFeatures + "; only the warmer heeds FF_KANIKO_OCI_WARMER=0", forks: "O"},
		{name: "KANIKO_PRE_CLEANUP", why: "as --pre-cleanup", forks: "O"},
		{name: "KANIKO_CLEANUP", why: "as --cleanup", forks: "O"},
		{name: "KANIKO_PRESERVE_CONTEXT", why: "as --preserve-context", forks: "O"},
		{name: "KANIKO_IGNORE_ASSERTIONS", why: "it is about what kaniko tests in itself", forks: "O"},
		{name: "KANIKO_TELEMETRY_ENDPOINT", why: whyTraceFile, forks: "O"},
		{name: "KANIKO_TELEMETRY_OMIT_DOCKERFILE", why: whyTraceFile, forks: "O"},
		{name: "OTEL_*", why: whyTraceFile, forks: "O"},
		{name: "STACKLOG_PATH", why: whyTraceFile, forks: "GCO"},
		{name: "BENCHMARK_FILE", why: whyTraceFile, forks: "GC"},
		{name: "SNAPSHOT_TIMEOUT_DURATION", why: "there is no walk over the file system that could take too long", forks: "GCO"},
		{name: "container", why: "building outside a container is safe, so nothing depends on being in one", forks: "GCO"},
	}
}

const whyFeatures = "kaniko's feature flags are about defects that do not exist here"

// features are the feature flags of kaniko's that are set.
func (c *command) features() []string {
	var out []string
	for _, kv := range c.env.Environ {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "FF_KANIKO_") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// boolVariable is the value of a variable, or otherwise if it is not set or empty.
func (c *command) boolVariable(name string, otherwise bool) (bool, error) {
	text := c.getenv(name)
	if text == "" {
		return otherwise, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s=%q is not a bool", name, text)
	}
	return b, nil
}
