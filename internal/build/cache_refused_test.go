package build_test

import (
	"fmt"
	"testing"

	"hako/internal/build"
	"hako/internal/registry/registrytest"
)

// TestRefusedCacheIsOneWarning holds that a cache beside the image that the registry does not let be, as Docker Hub and
// ECR do not, is said once and fails no build.
func TestRefusedCacheIsOneWarning(t *testing.T) {
	t.Parallel()
	denied := func(code, message string) string {
		return fmt.Sprintf(`{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	for name, f := range map[string]registrytest.Fault{
		"Docker Hub": {Status: 401, Body: denied("UNAUTHORIZED", "authentication required")},
		"denied":     {Status: 403, Body: denied("DENIED", "requested access to the resource is denied")},
		"ECR":        {Status: 404, Body: denied("NAME_UNKNOWN", "The repository with name 'out/cache' does not exist in the registry")},
		"no nesting": {Status: 400, Body: denied("NAME_INVALID", "repository name is not valid")},
		"a proxy":    {Status: 405, Body: "<html>no</html>"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "FROM scratch\nCOPY prog /\nCOPY Dockerfile /\nCOPY prog /again\n")
			f.Path = "/out/cache/"
			w.registry.Inject(f)
			req := w.request()
			req.Cache = build.Cache{Enabled: true, Copies: true}
			log := &steps{}
			if err := w.build(t.Context(), req, log); err != nil {
				t.Fatal(err)
			}
			if !w.pushed(t, "out:1") {
				t.Error("the image is not there")
			}
			if len(log.warnings) != 1 {
				t.Errorf("%d warnings: %q", len(log.warnings), log.warnings)
			}
		})
	}
}
