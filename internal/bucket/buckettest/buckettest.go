// Package buckettest starts object storage on this machine: gofakes3, fake-gcs-server, and Microsoft's own azurite.
package buckettest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/fsouza/fake-gcs-server/fakestorage"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// The identities that the servers know. AWS's are read by its software from the process's environment: see [Setenv].
const (
	AccessKey = "AKIDEXAMPLE"
	SecretKey = "secret-of-the-tests"
	// azureAccount and azureKey are azurite's, and everybody's: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
	azureAccount = "devstoreaccount1"
	azureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
	region       = "eu-test-1"
)

// Environment is what AWS's software must see to find the identity of the tests, and only that. It stands for all tests of
// a program: set it before any of them runs.
func Environment() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_REGION": region,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}
}

// Server is a service with one bucket.
type Server struct {
	// Place is the bucket as users write it.
	Place string
	// Env are variables that lead to the server and its identity, beside those of [Environment].
	Env map[string]string
	// Endpoint is the server's own address.
	Endpoint string

	mu       sync.Mutex // guards what follows
	fault    Fault
	requests []string
}

// Fault comes between a request and the service; next is what it would have answered.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Getenv looks up Env.
func (s *Server) Getenv(name string) string { return s.Env[name] }

// SetFault puts a fault in place of the one before; nil ends it.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Requests are method, path and range of what was asked since the last call.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.requests
	s.requests = nil
	return all
}

// start serves h behind the faults.
func (s *Server) start(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		fault := s.fault
		s.requests = append(s.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
		s.mu.Unlock()
		if fault != nil {
			fault(w, r, h)
			return
		}
		h.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	s.Endpoint = srv.URL
	return srv
}

// All starts each kind.
func All() map[string]func(testing.TB) *Server {
	return map[string]func(testing.TB) *Server{"s3": StartS3, "google": StartGoogle, "azure": StartAzure}
}

// StartS3 starts a server that verifies signatures.
func StartS3(t testing.TB) *Server {
	t.Helper()
	backend := s3mem.New()
	if err := backend.CreateBucket("bucket"); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(backend, gofakes3.WithLogger(gofakes3.DiscardLog())).Server()
	s := &Server{Place: "s3://bucket"}
	srv := s.start(t, signed(fake))
	s.Env = map[string]string{"S3_ENDPOINT": srv.URL, "S3_FORCE_PATH_STYLE": "true"}
	return s
}

// StartGoogle starts a server of Google Cloud Storage's protocol.
func StartGoogle(t testing.TB) *Server {
	t.Helper()
	s := &Server{Place: "gs://bucket"}
	var inner http.Handler
	srv := s.start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(w, r) }))
	fake, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true, ExternalURL: srv.URL, PublicHost: strings.TrimPrefix(srv.URL, "http://"), Writer: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Stop)
	fake.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: "bucket"})
	inner = fake.HTTPHandler()
	s.Env = map[string]string{"STORAGE_EMULATOR_HOST": strings.TrimPrefix(srv.URL, "http://")}
	return s
}

// azuriteAddress is the variable that holds where azurite listens.
const azuriteAddress = "HAKO_TEST_AZURITE"

// Main runs the tests of a package that uses this one: with the [Environment], and with one azurite for all of them, which
// comes from npm.
func Main(m *testing.M) int {
	for k, v := range Environment() {
		if err := os.Setenv(k, v); err != nil {
			panic(err)
		}
	}
	program, err := exec.LookPath("azurite-blob")
	if err != nil {
		return m.Run()
	}
	address, err := freeAddress()
	if err != nil {
		panic(err)
	}
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.Command(program, "--blobHost", host, "--blobPort", port, "--skipApiVersionCheck", "--silent", "--disableTelemetry", "--inMemoryPersistence")
	cmd.Stderr = os.Stderr
	if err := errors.Join(os.Setenv(azuriteAddress, address), cmd.Start()); err != nil {
		panic(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }() // ends by being killed
	return m.Run()
}

// StartAzure makes a container in azurite.
func StartAzure(t testing.TB) *Server {
	t.Helper()
	address := os.Getenv(azuriteAddress)
	if address == "" {
		t.Skip("needs azurite-blob: npm install azurite")
	}
	target := &url.URL{Scheme: "http", Host: address}
	name := containerName(t.Name())
	s := &Server{Place: "https://" + azureAccount + ".blob.core.windows.net/" + name}
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	srv := s.start(t, proxy)
	s.Env = map[string]string{"AZURE_STORAGE_SERVICE_ENDPOINT": srv.URL + "/" + azureAccount, "AZURE_STORAGE_ACCESS_KEY": azureKey}
	shared, err := container.NewSharedKeyCredential(azureAccount, azureKey)
	if err != nil {
		t.Fatal(err)
	}
	client, err := container.NewClientWithSharedKeyCredential(target.String()+"/"+azureAccount+"/"+name, shared, nil)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, target.Host)
	if _, err := client.Create(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return s
}

// containerName is a name of Azure's for a test.
func containerName(test string) string {
	return fmt.Sprintf("bucket-%08x", crc32.ChecksumIEEE([]byte(test)))
}

// freeAddress is one that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// waitFor waits until a server listens.
func waitFor(t testing.TB, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = c.Close() // it listens
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(fmt.Errorf("wait for %s: %w", address, err))
		}
	}
}
