package registry_test

import (
	"testing"
	"time"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// A repository that is not waited for fails soon where another would be asked again and again, for a long time.
func TestHurry(t *testing.T) {
	t.Parallel()
	for what, fault := range map[string]registrytest.Fault{
		"no answer":        {Hang: true},
		"asked to wait":    {Status: 429, Header: map[string][]string{"Retry-After": {"100"}}},
		"a passing fault":  {Status: 503},
		"a body that ends": {Method: "GET", Path: "/blobs/", StallAfter: 5},
	} {
		for _, kind := range []string{"fetch a blob", "fetch a manifest", "upload"} {
			t.Run(what+", "+kind, func(t *testing.T) {
				t.Parallel()
				reg := registrytest.New()
				host := reg.Start(t)
				data := noise(100)
				mustUpload(t, host, "a/b", data)
				o := quick()
				o.IdleTimeout, o.RetryDelay, o.Patience = time.Hour, 10*time.Millisecond, 100*time.Millisecond
				c, err := registry.New(o)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				repo, err := name0(host + "/a/b")
				if err != nil {
					t.Fatal(err)
				}
				c.Hurry(repo)
				if _, err := c.Repository(repo, registry.Pull).Has(t.Context(), descriptorOf(data).Digest); err != nil {
					t.Fatal(err)
				}
				before := len(reg.Requests())
				reg.Inject(fault)
				switch kind {
				case "fetch a blob":
					_, err = read(t, c.Repository(repo, registry.Pull), descriptorOf(data))
				case "fetch a manifest":
					_, err = c.Repository(repo, registry.Pull).Manifest(t.Context(), "x")
				default:
					err = c.Repository(repo, registry.Push).Upload(t.Context(), blobOf(noise(50)))
				}
				if err == nil && (fault.StallAfter == 0 || kind == "fetch a blob") {
					t.Error("it worked")
				}
				if n := len(reg.Requests()) - before; n > 6 {
					t.Errorf("%d requests", n)
				}
			})
		}
	}
}
