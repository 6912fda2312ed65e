package purl_test

import (
	_ "crypto/sha256" // digests in references
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/purl"
)

func TestURL(t *testing.T) {
	t.Parallel()
	for want, u := range map[string]purl.URL{
		"pkg:golang/github.com/a/b@v1.0.0%2Bincompatible": {Type: "golang", Namespace: "github.com/a", Name: "b", Version: "v1.0.0+incompatible"},
		"pkg:npm/%40s/p@1":                {Type: "npm", Namespace: "@s", Name: "p", Version: "1"},
		"pkg:deb/debian/a@1:2~b?arch=all": {Type: "deb", Namespace: "debian", Name: "a", Version: "1:2~b", Qualifiers: [][2]string{{"arch", "all"}, {"distro", ""}}},
		"pkg:pypi/a":                      {Type: "pypi", Name: "a"},
	} {
		if got := u.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestImage has what BuildKit v0.34.2 (util/purl) makes of the same references.
func TestImage(t *testing.T) {
	t.Parallel()
	const digest = "sha256:e8275b2b76280af67e26f068e5d585eb905f8dfd2f1918b3229db98133cb4862"
	arm64, armv7 := ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}, ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	for _, c := range []struct {
		ref      string
		platform ocispec.Platform
		want     string
	}{
		{"debian:12", arm64, "pkg:docker/debian@12?platform=linux%2Farm64"},
		{"127.0.0.1:5000/team/app:v1_x", armv7, "pkg:docker/127.0.0.1:5000/team/app@v1_x?platform=linux%2Farm%2Fv7"},
		{"ghcr.io/a/b@" + digest, arm64, "pkg:docker/ghcr.io/a/b?digest=" + digest + "&platform=linux%2Farm64"},
		{"debian", armv7, "pkg:docker/debian@latest?platform=linux%2Farm%2Fv7"},
		{"docker.io/x/y:1@" + digest, arm64, "pkg:docker/x/y@1?digest=" + digest + "&platform=linux%2Farm64"},
		{"docker.io/library/debian:12", ocispec.Platform{}, "pkg:docker/debian@12"},
		{"localhost/a_b.c:T-1", arm64, "pkg:docker/localhost/a_b.c@T-1?platform=linux%2Farm64"},
	} {
		got, err := purl.Image(c.ref, c.platform)
		if err != nil || got != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.ref, got, err, c.want)
		}
	}
	if got, err := purl.Image("Not A Reference", arm64); err == nil {
		t.Errorf("got %s", got)
	}
}
