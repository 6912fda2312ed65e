package contextsource

import "context"

// isAzure says whether text is the URL of a blob in Azure.
func isAzure(string) bool { return false }

func (o *opener) openS3(_ context.Context) (*Source, error) {
	return nil, o.unsupported("s3")
}

func (o *opener) openGoogle(_ context.Context) (*Source, error) {
	return nil, o.unsupported("gs")
}

func (o *opener) openAzure(_ context.Context) (*Source, error) {
	return nil, o.unsupported("https")
}
