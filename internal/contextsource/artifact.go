package contextsource

import "context"

func (o *opener) openArtifact(context.Context) (*Source, error) {
	return nil, o.unsupported("oci")
}
