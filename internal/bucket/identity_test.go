package bucket_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
)

// The tests of AWS's variables are not parallel: those belong to the process.

func TestWrongRegionIsMended(t *testing.T) {
	t.Setenv("AWS_REGION", "us-west-2")
	s := buckettest.StartS3(t)
	b := open(t, s)
	write(t, b, "x", []byte("there"))
	if got, err := read(t.Context(), b, "x"); string(got) != "there" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	s.SetFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("X-Amz-Bucket-Region", "ap-east-1")
		buckettest.Refuse(w, http.StatusMovedPermanently, "PermanentRedirect", "Use another endpoint.")
	})
	_, err := read(t.Context(), b, "x")
	expect(t, err, "read "+s.Place+"/x", "the bucket is in ap-east-1", "Set AWS_REGION=ap-east-1.")
}

func TestNobodyInParticular(t *testing.T) {
	for _, v := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(v, "")
	}
	s := buckettest.StartS3(t)
	b := open(t, s)
	_, err := read(t.Context(), b, "x")
	expect(t, err, "read "+s.Place+"/x", "it was asked without credentials, because there are none", "Set AWS_ACCESS_KEY_ID")
	s.SetFault(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		if r.Header.Get("Authorization") != "" {
			t.Error("a signature of nobody")
		}
		_, _ = io.WriteString(w, "public") // what everybody may read
	})
	if got, err := read(t.Context(), b, "x"); string(got) != "public" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWrongKey(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	s := buckettest.StartS3(t)
	_, err := read(t.Context(), open(t, s), "x")
	expect(t, err, "read "+s.Place+"/x", "403 SignatureDoesNotMatch", "Set AWS_ACCESS_KEY_ID")
}

// Each refusal of S3 says what to do about it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := buckettest.StartS3(t)
	b := open(t, s)
	for _, c := range []struct {
		status     int
		code, hint string
	}{
		{403, "AccessDenied", "Allow s3:GetObject and s3:ListBucket"},
		{400, "ExpiredToken", "Get new credentials"},
		{403, "RequestTimeTooSkewed", "Set this machine's clock"},
		{404, "NoSuchBucket", "Check the name of the bucket"},
		{404, "NoSuchKey", "Check the name: "},
		{403, "InvalidObjectState", "Restore the object"},
		{400, "AuthorizationHeaderMalformed", "Set AWS_REGION to the bucket's region."},
		{503, "SlowDown", "The service has a problem of its own"},
		{400, "RequestTimeout", "The service has a problem of its own"},
	} {
		s.SetFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			buckettest.Refuse(w, c.status, c.code, "in its own words\nhttp://x.example/?X-Amz-Signature=12345")
		})
		_, err := read(t.Context(), b, "x")
		expect(t, err, "read "+s.Place+"/x", fmt.Sprintf("%d %s: in its own words", c.status, c.code), c.hint)
		if strings.Contains(fmt.Sprint(err), "12345") {
			t.Errorf("a signature is in %v", err)
		}
	}
}

// dialTo is a transport that takes every host for the server.
func dialTo(srv *httptest.Server) *http.Transport {
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
	}
	return &http.Transport{DialContext: dial, DialTLSContext: dial}
}

// A key file is exchanged for a token, again when the token has ended, and the token is sent.
func TestServiceAccount(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "a@b.example", "token_uri": "https://oauth2.googleapis.com/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	tokens := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			tokens++
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"access_token":"token-%d","token_type":"Bearer","expires_in":1}`, tokens) // 1 second: at an end at once
		case r.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", tokens):
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, r.Host+r.URL.Path)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer srv.Close()
	b := openWith(t, &buckettest.Server{Place: "gs://bucket"}, bucket.Options{Transport: dialTo(srv)})
	for range 2 {
		if got, err := read(t.Context(), b, "a/b"); string(got) != "storage.googleapis.com/storage/v1/b/bucket/o/a/b" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	if tokens < 3 {
		t.Errorf("%d tokens: they were not renewed", tokens)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"message":"Anonymous caller does not have storage.objects.get access"}}`)
	})
	_, err = read(t.Context(), openWith(t, &buckettest.Server{Place: "gs://bucket"}, bucket.Options{Transport: dialTo(srv)}), "x")
	expect(t, err, "read gs://bucket/x", "Anonymous caller does not have storage.objects.get access; it was asked without credentials", "Set GOOGLE_APPLICATION_CREDENTIALS")
}

// A shared access signature in the URL is enough, until it has expired.
func TestSharedAccessSignature(t *testing.T) {
	t.Parallel()
	s := buckettest.StartAzure(t)
	write(t, open(t, s), "x", []byte("there"))
	name := strings.TrimPrefix(s.Place, "https://devstoreaccount1.blob.core.windows.net/")
	shared, err := container.NewSharedKeyCredential("devstoreaccount1", s.Env["AZURE_STORAGE_ACCESS_KEY"])
	if err != nil {
		t.Fatal(err)
	}
	endpoint := map[string]string{"AZURE_STORAGE_SERVICE_ENDPOINT": s.Env["AZURE_STORAGE_SERVICE_ENDPOINT"]}
	openSigned := func(until time.Time, env func(signature string) map[string]string, inPlace bool) *bucket.Bucket {
		t.Helper()
		values := sas.BlobSignatureValues{
			Protocol: sas.ProtocolHTTPSandHTTP, StartTime: time.Now().Add(-2 * time.Hour), ExpiryTime: until,
			ContainerName: name, Permissions: (&sas.ContainerPermissions{Read: true, List: true}).String(),
		}
		q, err := values.SignWithSharedKey(shared)
		if err != nil {
			t.Fatal(err)
		}
		place := s.Place
		if inPlace {
			place += "?" + q.Encode()
		}
		return open(t, &buckettest.Server{Place: place, Env: env(q.Encode())})
	}
	plain := func(string) map[string]string { return endpoint }
	token := func(signature string) map[string]string {
		return map[string]string{"AZURE_STORAGE_SERVICE_ENDPOINT": endpoint["AZURE_STORAGE_SERVICE_ENDPOINT"], "AZURE_STORAGE_SAS_TOKEN": "?" + signature}
	}
	for _, b := range []*bucket.Bucket{openSigned(time.Now().Add(time.Hour), plain, true), openSigned(time.Now().Add(time.Hour), token, false)} {
		if got, err := read(t.Context(), b, "x"); string(got) != "there" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		err := b.Write(t.Context(), "y", strings.NewReader("y"), 1)
		expect(t, err, "write "+s.Place+"/y", "403 AuthorizationPermissionMismatch", "Grant the role Storage Blob Data Reader")
	}
	_, err = read(t.Context(), openSigned(time.Now().Add(-time.Hour), plain, true), "x")
	expect(t, err, "read "+s.Place+"/x", "403 Auth", "") // azurite and Azure have different words for it
}
