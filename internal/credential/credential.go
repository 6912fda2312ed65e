// Package credential finds registry credentials where no configuration file has any: in variables of the environment,
// and with the identities that clouds give to machines, pods and jobs. A helper answers only for the registries
// that it knows by their names, so no credential goes to a host that it is not for.
package credential

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"hako/internal/diag"
	"hako/internal/registry"
)

// Names are all helpers in the order in which they are asked, which is kaniko's.
func Names() []string { return []string{"env", "google", "ecr", "acr", "gitlab"} }

// Helpers are the helpers with these names, in this order; nil stands for all of them. The cloud's software reads the
// process's own environment, getenv is for everything else.
func Helpers(names []string, getenv func(string) string) ([]registry.Helper, error) {
	if names == nil {
		names = Names()
	}
	all := map[string]func(context.Context, string) (*authn.AuthConfig, error){
		"env":    fromVariables(getenv),
		"gitlab": fromGitLab(getenv),
	}
	for name, get := range clouds() {
		all[name] = get
	}
	var out []registry.Helper
	for _, n := range names {
		if n == "" {
			continue // an empty list switches all off, as in kaniko
		}
		get, ok := all[n]
		switch {
		case ok:
			out = append(out, registry.Helper{Name: n, Get: get})
		case !slices.Contains(Names(), n):
			return nil, &diag.Error{
				What: fmt.Sprintf("unknown credential helper %q", n),
				Hint: "There are " + strings.Join(Names(), ", ") + ".",
			}
		}
	}
	return out, nil
}

// fromVariables reads KANIKO_<HOST>_USER and KANIKO_<HOST>_PASSWORD: the host in upper case, with "_" for what cannot be
// in a variable's name. Variables of the domains above it count as well, the nearest first.
func fromVariables(getenv func(string) string) func(context.Context, string) (*authn.AuthConfig, error) {
	name := strings.NewReplacer(".", "_", "-", "_", ":", "_")
	return func(_ context.Context, host string) (*authn.AuthConfig, error) {
		for domain := host; domain != ""; _, domain, _ = strings.Cut(domain, ".") {
			prefix := "KANIKO_" + strings.ToUpper(name.Replace(domain))
			user, password := getenv(prefix+"_USER"), getenv(prefix+"_PASSWORD")
			if user != "" && password != "" {
				return &authn.AuthConfig{Username: user, Password: password}, nil
			}
		}
		return nil, nil
	}
}

// fromGitLab reads the variables that GitLab CI sets for its registry and its dependency proxy:
// https://docs.gitlab.com/ci/variables/predefined_variables/
func fromGitLab(getenv func(string) string) func(context.Context, string) (*authn.AuthConfig, error) {
	return func(_ context.Context, host string) (*authn.AuthConfig, error) {
		for _, v := range [][3]string{
			{"CI_REGISTRY", "CI_REGISTRY_USER", "CI_REGISTRY_PASSWORD"},
			{"CI_DEPENDENCY_PROXY_SERVER", "CI_DEPENDENCY_PROXY_USER", "CI_DEPENDENCY_PROXY_PASSWORD"},
		} {
			server, user, password := getenv(v[0]), getenv(v[1]), getenv(v[2])
			if server != "" && registry.SameHost(server, host) && user != "" && password != "" {
				return &authn.AuthConfig{Username: user, Password: password}, nil
			}
		}
		return nil, nil
	}
}
