package bucket_test

import (
	"errors"
	"strings"
	"testing"

	"hako/internal/bucket"
	"hako/internal/diag"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bucket.Place{
		"s3://b-1.x/k/e y.tar.gz":                               {Service: bucket.S3, Bucket: "b-1.x", Key: "k/e y.tar.gz"},
		"s3://bucket":                                           {Service: bucket.S3, Bucket: "bucket"},
		"s3://bucket/":                                          {Service: bucket.S3, Bucket: "bucket"},
		"s3://bucket/a%20b%3F#c":                                {Service: bucket.S3, Bucket: "bucket", Key: "a b?#c"},
		"s3://bucket/100%":                                      {Service: bucket.S3, Bucket: "bucket", Key: "100%"},
		"s3://bucket/a?versionId=x%2Fy":                         {Service: bucket.S3, Bucket: "bucket", Key: "a", Version: "x/y"},
		"gs://bucket_1":                                         {Service: bucket.Google, Bucket: "bucket_1"},
		"gs://bucket/a/b?c#1700000000":                          {Service: bucket.Google, Bucket: "bucket", Key: "a/b?c", Version: "1700000000"},
		"https://a12.blob.core.windows.net/c/d/e":               {Service: bucket.Azure, Bucket: "c", Key: "d/e", Host: "a12.blob.core.windows.net"},
		"https://A12.Blob.core.windows.net:443/c/%41":           {Service: bucket.Azure, Bucket: "c", Key: "A", Host: "a12.blob.core.windows.net"},
		"https://a12.blob.core.chinacloudapi.cn/c/d":            {Service: bucket.Azure, Bucket: "c", Key: "d", Host: "a12.blob.core.chinacloudapi.cn"},
		"https://a12.blob.core.cloudapi.de/c/d":                 {Service: bucket.Azure, Bucket: "c", Key: "d", Host: "a12.blob.core.cloudapi.de"},
		"https://a12.blob.core.usgovcloudapi.net/c/d":           {Service: bucket.Azure, Bucket: "c", Key: "d", Host: "a12.blob.core.usgovcloudapi.net"},
		"https://a12.z41.blob.storage.azure.net/c/d":            {Service: bucket.Azure, Bucket: "c", Key: "d", Host: "a12.z41.blob.storage.azure.net"},
		"https://a12.privatelink.blob.core.windows.net/$root/d": {Service: bucket.Azure, Bucket: "$root", Key: "d", Host: "a12.privatelink.blob.core.windows.net"},
	} {
		got, err := bucket.Parse(text)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if !bucket.IsPlace(text) {
			t.Errorf("%s is no place", text)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"s3://":                 "no name of a bucket",
		"s3:///key":             "no name of a bucket",
		"s3://b/k":              "no name of a bucket",
		"s3://bu cket/k":        "no name of a bucket",
		"s3://bucket@host/k":    "no name of a bucket",
		"s3://bucket/k?x=1":     "other than versionId",
		"gs://bucket/k#abc":     "other than a generation",
		"ftp://x":               "no place in object storage",
		"https://example.org/x": "no place in object storage",
		"https://a12.blob.core.windows.net.evil.example/c/d":                   "looks like Azure's blob storage and is not",
		"https://a12.blob.core.windows.net@evil.blob.core.windows.example/c/d": "looks like",
		"https://evil.example.blob.core.windows.net.evil/c":                    "looks like",
		"https://a_b.blob.core.windows.net/c/d":                                "looks like",
		"https://a12.blob.core.windows.net:8080/c/d":                           "looks like",
		"https://a12.blob.core.windowsxnet/c/d":                                "looks like",
		"https://xblob.blob.core.windows.net.:443/c/d":                         "looks like",
		"http://a12.blob.core.windows.net/c/d":                                 "not fetched over plain http",
		"https://u:secret@a12.blob.core.windows.net/c/d":                       "neither a user nor a fragment",
		"https://a12.blob.core.windows.net/":                                   "the container is missing",
	} {
		_, err := bucket.Parse(text)
		var d *diag.Error
		if !errors.As(err, &d) || !strings.Contains(d.What, want) || d.Hint == "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", text, err)
		}
	}
	p, err := bucket.Parse("https://a12.blob.core.windows.net/c/d?sv=1&sig=secret")
	if err != nil || p.String() != "https://a12.blob.core.windows.net/c/d" {
		t.Errorf("%s, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"s3://bucket/a%20b?versionId=1", "gs://b/k#1", "https://a12.blob.core.windows.net/c/d?sig=x", "https://a12.blob.core.windows.net.evil/c", "s3://%", "http://[::1/.blob.core.w"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := bucket.Parse(text)
		if err != nil {
			return
		}
		if p.Bucket == "" || strings.Contains(p.Bucket, "/") {
			t.Errorf("%q: %+v", text, p)
		}
		if p.Service == bucket.Azure && !strings.HasSuffix(p.Host, ".net") && !strings.HasSuffix(p.Host, ".cn") && !strings.HasSuffix(p.Host, ".de") {
			t.Errorf("%q: %+v", text, p)
		}
	})
}
