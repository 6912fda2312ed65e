package bucket_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
)

// BenchmarkRead reads an object of 1 GiB from a file server that speaks S3's GET, in this process, into a file: with a Reader,
// and as AWS's own tools do it: parts of 8 MiB, five at a time, each written where it belongs. The server's CPU time is in both.
//
//	go test ./internal/bucket -run '^$' -bench Read -benchtime 3x -count 5
func BenchmarkRead(b *testing.B) {
	const size = 1 << 30
	source := filepath.Join(b.TempDir(), "object")
	noise := buckettest.Noise("bench", 1<<20)
	f, err := os.Create(source)
	for range size >> 20 {
		if err == nil {
			_, err = f.Write(noise)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // written and read
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"etag"`)
		http.ServeContent(w, r, "object", time.Unix(1, 0), io.NewSectionReader(f, 0, size))
	}))
	defer srv.Close()
	env := map[string]string{"S3_ENDPOINT": srv.URL, "S3_FORCE_PATH_STYLE": "true"}
	for name, get := range map[string]func(context.Context, *os.File) error{
		"ours":      func(ctx context.Context, to *os.File) error { return readOurs(ctx, env, to) },
		"reference": func(ctx context.Context, to *os.File) error { return readReference(ctx, srv.URL, to, size) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			before := cpuSeconds(b)
			for b.Loop() {
				to, err := os.Create(filepath.Join(b.TempDir(), "copy"))
				if err != nil {
					b.Fatal(err)
				}
				if err := get(b.Context(), to); err != nil {
					b.Fatal(err)
				}
				if fi, err := to.Stat(); err != nil || fi.Size() != size {
					b.Fatal(fi, err)
				}
				if err := to.Close(); err != nil {
					b.Fatal(err)
				}
				_ = os.Remove(to.Name()) // room for the next
			}
			b.ReportMetric((cpuSeconds(b)-before)/float64(b.N), "cpu-s/op")
		})
	}
}

func cpuSeconds(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

func readOurs(ctx context.Context, env map[string]string, to io.Writer) error {
	p, err := bucket.Parse("s3://bucket/object")
	if err != nil {
		return err
	}
	b, err := bucket.Open(ctx, bucket.Options{Getenv: func(k string) string { return env[k] }}, p)
	if err != nil {
		return err
	}
	defer b.Close()
	r, err := b.Read(ctx, "object")
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // never fails
	_, err = io.Copy(to, r)
	return err
}

func readReference(ctx context.Context, endpoint string, to io.WriterAt, size int64) error {
	const part = 8 << 20
	client := s3.New(s3.Options{
		BaseEndpoint: &endpoint, UsePathStyle: true, Region: "eu-test-1",
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: buckettest.AccessKey, SecretAccessKey: buckettest.SecretKey}, nil
		}),
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
	})
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(5)
	for at := int64(0); at < size; at += part {
		g.Go(func() error {
			out, err := client.GetObject(ctx, &s3.GetObjectInput{
				Bucket: aws.String("bucket"), Key: aws.String("object"), Range: aws.String(fmt.Sprintf("bytes=%d-%d", at, min(at+part, size)-1)),
			})
			if err != nil {
				return err
			}
			defer out.Body.Close() //nolint:errcheck // only read
			_, err = io.Copy(io.NewOffsetWriter(to, at), out.Body)
			return err
		})
	}
	return g.Wait()
}
