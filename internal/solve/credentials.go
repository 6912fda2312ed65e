package solve

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path"

	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/tree"
)

// A file with docker's credentials is often beside the sources, where a job has put it for the builder. COPY . . makes it a
// part of the image, which is then pushed for all to read. That is what the instruction says, so it is done; but with a warning.

// maxConfig is how large a file with credentials may be that is recognized.
const maxConfig = 1 << 20 // 1 MiB

// watched are changes that tell of docker's credentials in them.
type watched struct {
	layer.Changes
	tell func(path string)
}

// watch lets s warn of credentials in what step copies.
func (s *solver) watch(changes layer.Changes, step *plan.Step) layer.Changes {
	return &watched{changes, func(p string) {
		s.parts.Events.Emit(event.Warning{
			Message: "/" + p + " has credentials for registries (auths), and whoever gets the image can read them; .dockerignore can leave it out", Span: step.Span,
		})
	}}
}

// Each is Changes.Each.
func (w *watched) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	return w.Changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		if content == nil || e.Size > maxConfig || !isConfigName(path.Base(e.Path)) {
			return fn(e, content)
		}
		var text bytes.Buffer
		err := fn(e, io.TeeReader(content, &text))
		if err == nil && hasAuths(text.Bytes(), path.Base(e.Path)) {
			w.tell(e.Path)
		}
		return err
	})
}

// isConfigName says whether docker, its older versions, or Kubernetes call files with credentials so.
func isConfigName(name string) bool {
	return name == "config.json" || name == ".dockerconfigjson" || name == ".dockercfg" || name == "auth.json"
}

// hasAuths says whether data has credentials in docker's form.
func hasAuths(data []byte, name string) bool {
	var config struct {
		Auths map[string]entry `json:"auths"`
	}
	if name == ".dockercfg" { // the entries alone
		_ = json.Unmarshal(data, &config.Auths) // if it is another form, there are none
	} else {
		_ = json.Unmarshal(data, &config) // likewise
	}
	for _, e := range config.Auths {
		if e != (entry{}) {
			return true
		}
	}
	return false
}

// entry is what docker keeps for a registry.
type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}
