package contextsource

import (
	"context"
	"io"
	"time"
)

// object is one file with an archive, from wherever it comes.
type object struct {
	// name is what people call it, without secrets. uri names it to others; empty for what only this machine knows.
	name, uri string
	// digest is that of the whole file, as "sha256:…"; where it is empty, it is found out on the way.
	digest string
	// modTime is when the file was changed last; the zero value if that is not known.
	modTime time.Time
	// size is in bytes; 0 if it is not known. It is for the progress only.
	size int64
	// open reads the file from its start.
	open func(ctx context.Context) (io.ReadCloser, error)
	// again says that open may be called more than once.
	again bool
}

// unpack makes a source of an archive, whatever it is compressed with. The object is not needed any more when it returns.
func (o *opener) unpack(_ context.Context, _ object) (*Source, error) {
	return nil, o.unsupported("tar")
}

func (o *opener) openArchiveFile(ctx context.Context) (*Source, error) {
	return o.unpack(ctx, object{})
}

func (o *opener) openStandardInput(_ context.Context) (*Source, error) {
	return nil, o.unsupported("tar")
}

func (o *opener) openWebFile(_ context.Context) (*Source, error) {
	return nil, o.unsupported("https")
}

func (o *opener) openArtifact(_ context.Context) (*Source, error) {
	return nil, o.unsupported("oci")
}
