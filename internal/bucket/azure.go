//go:build !slim

package bucket

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"hako/internal/web"
)

// azureScope is what a token is for.
const azureScope = "https://storage.azure.com/.default"

// azureService speaks to Azure's blob storage.
type azureService struct {
	container *container.Client
}

var _ service = (*azureService)(nil)

// connectAzure takes the URL's signature, or an account's key, or whom Azure's own software finds: a service principal,
// workload identity, the managed identity of the machine.
func (b *Bucket) connectAzure(ctx context.Context) error {
	options := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: b.client(web.NewTransport()),
		Retry:     policy.RetryOptions{MaxRetries: -1}, // we try again ourselves
	}}
	base := strings.TrimSuffix(b.options.env("AZURE_STORAGE_SERVICE_ENDPOINT"), "/")
	if base == "" {
		base = "https://" + b.place.Host
	}
	base += "/" + url.PathEscape(b.place.Bucket)
	client, err := b.azureClient(ctx, base, options)
	if err != nil {
		return err
	}
	b.service = &azureService{client}
	return nil
}

// azureClient chooses an identity.
func (b *Bucket) azureClient(ctx context.Context, base string, options *container.ClientOptions) (*container.Client, error) {
	if b.place.query != "" {
		return container.NewClientWithNoCredential(base+"?"+b.place.query, options)
	}
	if sas := b.options.env("AZURE_STORAGE_SAS_TOKEN"); sas != "" {
		return container.NewClientWithNoCredential(base+"?"+strings.TrimPrefix(sas, "?"), options)
	}
	if key := firstOf(b.options.env("AZURE_STORAGE_ACCESS_KEY"), b.options.env("AZURE_STORAGE_KEY")); key != "" {
		shared, err := container.NewSharedKeyCredential(b.place.account(), key)
		if err != nil {
			return nil, errors.New("the access key in AZURE_STORAGE_ACCESS_KEY is not one: it has to be base64")
		}
		return container.NewClientWithSharedKeyCredential(base, shared, options)
	}
	identity, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions: azcore.ClientOptions{Cloud: azureCloud(b.place.Host)},
	})
	if err == nil {
		_, err = identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{azureScope}})
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		b.anonymous = err
		return container.NewClientWithNoCredential(base, options)
	}
	return container.NewClient(base, identity, options)
}

func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// azureCloud knows an account's cloud by its host.
func azureCloud(host string) cloud.Configuration {
	switch {
	case strings.HasSuffix(host, ".chinacloudapi.cn"):
		return cloud.AzureChina
	case strings.HasSuffix(host, ".usgovcloudapi.net"):
		return cloud.AzureGovernment
	}
	return cloud.AzurePublic
}

// azureAnswer finds the server's answer in an error.
func azureAnswer(err error) error {
	var re *azcore.ResponseError
	if err == nil || !errors.As(err, &re) {
		return err
	}
	a := &answer{status: re.StatusCode, code: re.ErrorCode}
	if re.RawResponse != nil {
		a.message = web.FirstLine(re.RawResponse.Header.Get("X-Ms-Error-Detail"), redact)
	}
	a.reason = reasonOf(a.status, a.code)
	switch {
	case bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.TargetConditionNotMet):
		a.reason = replaced
	case bloberror.HasCode(err, bloberror.InvalidRange):
		a.reason = emptyRange
	case bloberror.HasCode(err, bloberror.AuthenticationFailed):
		a.reason = authenticationFailed(err.Error())
	}
	return a
}

// authenticationFailed tells apart what Azure calls by one name.
func authenticationFailed(text string) reason {
	switch {
	case strings.Contains(text, "Signature not valid in the specified time frame") || strings.Contains(text, "Signed expiry time"):
		return expired
	case strings.Contains(text, "Request date header too old"):
		return skewed
	}
	return unknownUser
}

func (s *azureService) get(ctx context.Context, r request) (*response, error) {
	client := s.container.NewBlobClient(r.key)
	options := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: r.offset, Count: r.length}}
	if r.match != "" {
		etag := azcore.ETag(r.match)
		options.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}}
	}
	out, err := client.DownloadStream(ctx, options)
	if err != nil {
		return nil, azureAnswer(err)
	}
	size, err := whole(r, deref(out.ContentRange), deref(out.ContentLength))
	if err != nil {
		_ = out.Body.Close() // not what we asked for
		return nil, err
	}
	return &response{
		Object: Object{Key: r.key, Size: size, ModTime: deref(out.LastModified), Version: string(deref(out.ETag)), Encoding: deref(out.ContentEncoding)},
		body:   out.Body,
	}, nil
}

// deref is what p points at, or nothing.
func deref[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func (s *azureService) put(ctx context.Context, key string, data []byte) error {
	_, err := s.container.NewBlockBlobClient(key).Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), nil)
	return azureAnswer(err)
}

func (s *azureService) list(ctx context.Context, prefix, after string) ([]Object, string, error) {
	pager := s.container.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: optional(prefix), Marker: optional(after)})
	out, err := pager.NextPage(ctx)
	if err != nil {
		return nil, "", azureAnswer(err)
	}
	var objects []Object
	for _, i := range out.Segment.BlobItems {
		o := Object{Key: deref(i.Name)}
		if p := i.Properties; p != nil {
			o.Size, o.ModTime, o.Version = deref(p.ContentLength), deref(p.LastModified), string(deref(p.ETag))
		}
		objects = append(objects, o)
	}
	return objects, deref(out.NextMarker), nil
}

func (s *azureService) remove(ctx context.Context, key string) error {
	_, err := s.container.NewBlobClient(key).Delete(ctx, nil)
	return azureAnswer(err)
}

func (s *azureService) begin(_ context.Context, key string, _ int64) (upload, error) {
	return &azureUpload{client: s.container.NewBlockBlobClient(key), name: rand.Uint64()}, nil
}

// azureUpload is a block blob whose blocks are staged. Blocks of an upload that failed vanish by themselves.
type azureUpload struct {
	client *blockblob.Client
	name   uint64 // tells its blocks from those of others who write the same blob

	mu    sync.Mutex // guards parts
	parts int
}

func (u *azureUpload) width() int { return defaultParts }

// block names a block; all names of a blob are of one length.
func (u *azureUpload) block(number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%016x-%08d", u.name, number))
}

func (u *azureUpload) part(ctx context.Context, number int, _ int64, data []byte) error {
	_, err := u.client.StageBlock(ctx, u.block(number), streaming.NopCloser(bytes.NewReader(data)), nil)
	if err != nil {
		return azureAnswer(err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = max(u.parts, number+1)
	return nil
}

func (u *azureUpload) commit(ctx context.Context) error {
	var ids []string
	for i := range u.parts {
		ids = append(ids, u.block(i))
	}
	_, err := u.client.CommitBlockList(ctx, ids, nil)
	return azureAnswer(err)
}

func (u *azureUpload) abort(context.Context) error { return nil }

var _ policy.Transporter = (*http.Client)(nil)
