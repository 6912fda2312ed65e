//go:build !slim

package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"hako/internal/web"
)

// anyRegion is asked where none is configured: it tells where a bucket is.
const anyRegion = "us-east-1"

// s3Service speaks to S3. It finds out by itself in which region a bucket is, and whether a server of one's own wants buckets
// in paths instead of host names.
type s3Service struct {
	bucket string
	client *s3.Client
	custom bool // an endpoint was given

	mu      sync.Mutex // guards mended
	mended  []func(*s3.Options)
	regions []string // that were tried
	paths   bool     // buckets are in paths
}

var _ service = (*s3Service)(nil)

// connectS3 finds an identity with the SDK's own chain: variables, files, web identity, the pod's or machine's role.
func (b *Bucket) connectS3(ctx context.Context) error {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("read the configuration of AWS: %w", err)
	}
	if cfg.Region == "" {
		cfg.Region = anyRegion
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.anonymous = err
		cfg.Credentials = aws.AnonymousCredentials{}
	}
	transport := web.NewTransport()
	if own, ok := cfg.HTTPClient.(*awshttp.BuildableClient); ok { // has AWS_CA_BUNDLE
		transport.TLSClientConfig = own.GetTransport().TLSClientConfig
	}
	client := b.client(transport)
	endpoint := b.options.env("S3_ENDPOINT")
	if endpoint != "" && !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	s := &s3Service{bucket: b.place.Bucket, regions: []string{cfg.Region}, paths: b.options.env("S3_FORCE_PATH_STYLE") == "true"}
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.HTTPClient = client
		o.Retryer = aws.NopRetryer{} // we try again ourselves
		// What is read and written is compared with digests of our own; many servers know no other checksums.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if endpoint != "" {
			o.BaseEndpoint = &endpoint
		}
		o.UsePathStyle = s.paths
		s.custom = o.BaseEndpoint != nil
	})
	b.service = s
	return nil
}

// options are what was found out.
func (s *s3Service) options(o *s3.Options) {
	s.mu.Lock()
	mended := slices.Clone(s.mended)
	s.mu.Unlock()
	for _, m := range mended {
		m(o)
	}
}

// do sends a request, and once more where the first answer shows how it had to be sent.
func (s *s3Service) do(send func(func(*s3.Options)) error) error {
	const ways = 3 // as it is, in the right region, with the bucket in the path
	var err error
	for range ways {
		err = s3Answer(send(s.options))
		if err == nil || !s.mend(err) {
			break
		}
	}
	return err
}

// mend learns from an error how the bucket is reached; false if it does not know.
func (s *s3Service) mend(err error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	var a *answer
	var dns *net.DNSError
	switch {
	case errors.As(err, &a) && a.region != "" && a.reason == wrongRegion && !slices.Contains(s.regions, a.region):
		region := a.region
		s.regions = append(s.regions, region)
		s.mended = append(s.mended, func(o *s3.Options) { o.Region = region })
		return true
	case errors.As(err, &dns) && dns.IsNotFound && s.custom && !s.paths:
		s.paths = true
		s.mended = append(s.mended, func(o *s3.Options) { o.UsePathStyle = true })
		return true
	}
	return false
}

// s3Answer finds the server's answer in an error.
func s3Answer(err error) error {
	var re *awshttp.ResponseError
	if err == nil || !errors.As(err, &re) || re.Response == nil {
		var u *url.Error
		if errors.As(err, &u) {
			return u // without the SDK's words around it
		}
		return err
	}
	a := &answer{status: re.HTTPStatusCode(), region: re.Response.Header.Get("X-Amz-Bucket-Region")}
	var ae smithy.APIError
	if errors.As(err, &ae) && ae.ErrorCode() != "UnknownError" {
		a.code, a.message = ae.ErrorCode(), web.FirstLine(ae.ErrorMessage(), redact)
	}
	a.reason = reasonOf(a.status, a.code)
	if a.reason == wrongRegion && a.region == "" {
		if m := regexp.MustCompile(`expecting ['"]([a-z0-9-]+)['"]`).FindStringSubmatch(a.message); m != nil {
			a.region = m[1]
		}
	}
	if a.status < http.StatusBadRequest && a.reason == other {
		return err // an answer that cannot be read
	}
	return a
}

// optional is nil for the empty string.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// rangeHeader is the value of the header of that name, or "" for everything.
func rangeHeader(r request) string {
	if r.length == 0 {
		return ""
	}
	return fmt.Sprintf("bytes=%d-%d", r.offset, r.offset+r.length-1)
}

// whole reads the size of the whole from a Content-Range.
func whole(r request, contentRange string, length int64) (int64, error) {
	if r.length == 0 || r.offset == 0 && (contentRange == "" || length == 0) { // a server that sends everything
		return length, nil
	}
	var first, last, size int64
	if _, err := fmt.Sscanf(contentRange, "bytes %d-%d/%d", &first, &last, &size); err != nil || first != r.offset || last < first || size <= last {
		return 0, &answer{reason: rangeIgnored}
	}
	return size, nil
}

func (s *s3Service) get(ctx context.Context, r request) (*response, error) {
	in := &s3.GetObjectInput{Bucket: &s.bucket, Key: &r.key, VersionId: optional(r.version), IfMatch: optional(r.match), Range: optional(rangeHeader(r))}
	var out *s3.GetObjectOutput
	err := s.do(func(o func(*s3.Options)) (err error) {
		out, err = s.client.GetObject(ctx, in, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	size, err := whole(r, aws.ToString(out.ContentRange), aws.ToInt64(out.ContentLength))
	if err != nil {
		_ = out.Body.Close() // not what we asked for
		return nil, err
	}
	return &response{
		Object: Object{Key: r.key, Size: size, ModTime: aws.ToTime(out.LastModified), Version: aws.ToString(out.ETag), Encoding: aws.ToString(out.ContentEncoding)},
		body:   out.Body,
	}, nil
}

func (s *s3Service) put(ctx context.Context, key string, data []byte) error {
	return s.do(func(o func(*s3.Options)) error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: bytes.NewReader(data)}, o)
		return err
	})
}

func (s *s3Service) list(ctx context.Context, prefix, after string) ([]Object, string, error) {
	var out *s3.ListObjectsV2Output
	err := s.do(func(o func(*s3.Options)) (err error) {
		out, err = s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: optional(prefix), ContinuationToken: optional(after)}, o)
		return err
	})
	if err != nil {
		return nil, "", err
	}
	var objects []Object
	for _, c := range out.Contents {
		objects = append(objects, Object{Key: aws.ToString(c.Key), Size: aws.ToInt64(c.Size), ModTime: aws.ToTime(c.LastModified), Version: aws.ToString(c.ETag)})
	}
	if !aws.ToBool(out.IsTruncated) {
		return objects, "", nil
	}
	return objects, aws.ToString(out.NextContinuationToken), nil
}

func (s *s3Service) remove(ctx context.Context, key string) error {
	return s.do(func(o func(*s3.Options)) error {
		_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key}, o)
		return err
	})
}

func (s *s3Service) begin(ctx context.Context, key string, _ int64) (upload, error) {
	var out *s3.CreateMultipartUploadOutput
	err := s.do(func(o func(*s3.Options)) (err error) {
		out, err = s.client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: &s.bucket, Key: &key}, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &s3Upload{s: s, key: key, id: aws.ToString(out.UploadId), etags: map[int]string{}}, nil
}

// s3Upload is a multipart upload.
type s3Upload struct {
	s       *s3Service
	key, id string

	mu    sync.Mutex // guards etags
	etags map[int]string
}

func (u *s3Upload) width() int { return defaultParts }

func (u *s3Upload) part(ctx context.Context, number int, _ int64, data []byte) error {
	var out *s3.UploadPartOutput
	err := u.s.do(func(o func(*s3.Options)) (err error) {
		out, err = u.s.client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: &u.s.bucket, Key: &u.key, UploadId: &u.id, PartNumber: aws.Int32(int32(number + 1)), Body: bytes.NewReader(data),
		}, o)
		return err
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.etags[number] = aws.ToString(out.ETag)
	return nil
}

func (u *s3Upload) commit(ctx context.Context) error {
	var parts []types.CompletedPart
	for i := range len(u.etags) {
		parts = append(parts, types.CompletedPart{ETag: aws.String(u.etags[i]), PartNumber: aws.Int32(int32(i + 1))})
	}
	return u.s.do(func(o func(*s3.Options)) error {
		_, err := u.s.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: &u.s.bucket, Key: &u.key, UploadId: &u.id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		}, o)
		return err
	})
}

func (u *s3Upload) abort(ctx context.Context) error {
	return u.s.do(func(o func(*s3.Options)) error {
		_, err := u.s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &u.s.bucket, Key: &u.key, UploadId: &u.id}, o)
		return err
	})
}
