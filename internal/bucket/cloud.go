//go:build !slim

package bucket

import "context"

// connect makes the service of the bucket's place.
func (b *Bucket) connect(ctx context.Context) error {
	switch b.place.Service {
	case S3:
		return b.connectS3(ctx)
	case Google:
		return b.connectGoogle(ctx)
	case Azure:
		return b.connectAzure(ctx)
	}
	panic("a place without a service") // Parse makes none
}
