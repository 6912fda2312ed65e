package cache_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
	"hako/internal/cache"
)

func TestMain(m *testing.M) { os.Exit(buckettest.Main(m)) }

// objects opens the bucket of a server below a prefix.
func objects(t *testing.T, s *buckettest.Server) (*bucket.Bucket, bucket.Place) {
	t.Helper()
	p, err := bucket.Parse(s.Place + "/team a/cache/")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Open(t.Context(), bucket.Options{Getenv: s.Getenv, RetryDelay: time.Millisecond, Window: cache.BucketWindow}, p)
	if err != nil {
		t.Fatal(err)
	}
	return b, p
}

func openBucket(t *testing.T, s *buckettest.Server) *cache.Bucket {
	t.Helper()
	store := cache.NewBucket(objects(t, s))
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// What is damaged, incomplete or about something else is no record, and is made whole by the next Put.
func TestDamagedBucket(t *testing.T) {
	t.Parallel()
	s := buckettest.StartS3(t)
	store := openBucket(t, s)
	raw, _ := objects(t, s)
	defer raw.Close()
	set := func(key, text string) {
		t.Helper()
		if err := raw.Write(t.Context(), "team a/cache/"+key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Fatal(err)
		}
	}
	put(t, store)
	record, layer := "records/"+string(key("1"))+".json", "sha256/"+digest.FromString("the layer").Encoded()
	for _, text := range []string{"", "{", `{"version":99}`, "null", strings.Repeat(" ", 2<<20)} {
		set(record, text)
		if f, err := store.Get(t.Context(), key("1")); f != nil || !errors.Is(err, cache.ErrRecord) {
			t.Errorf("%.20q: %v, %v", text, f, err)
		}
	}
	put(t, store)
	set(layer, "the lAyer")
	f, err := store.Get(t.Context(), key("1"))
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	rc, err := f.Blob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(rc); err == nil {
		t.Error("a damaged layer is read")
	}
	if _, err := raw.Stat(t.Context(), "team a/cache/"+layer); !errors.Is(err, bucket.ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	put(t, store)
	rc, err = f.Blob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(rc); err != nil || !bytes.Equal(data, []byte("the layer")) {
		t.Errorf("%q, %v", data, err)
	}
}

// A bucket that is not there is no miss but an error: else each build would be slow and nobody knew why.
func TestBucketThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := buckettest.StartS3(t)
	store := openBucket(t, &buckettest.Server{Place: "s3://elsewhere", Env: s.Env})
	if f, err := store.Get(t.Context(), key("1")); f != nil || err == nil || errors.Is(err, cache.ErrRecord) {
		t.Error(f, err)
	}
}
