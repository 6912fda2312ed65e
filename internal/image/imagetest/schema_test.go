package imagetest_test

import (
	"testing"

	"hako/internal/image/imagetest"
)

func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	const manifest, index, config = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.config.v1+json"
	const digest = `"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"`
	good := `{"schemaVersion":2,"config":{"mediaType":"` + config + `","digest":` + digest + `,"size":1},"layers":[]}`
	for _, tt := range []struct {
		mediaType, data string
		ok              bool
	}{
		{config, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, true},
		{config, `{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`, false},
		{index, `{"schemaVersion":2,"manifests":[]}`, true},
		{index, `{"schemaVersion":1,"manifests":[]}`, false},
		{index, `{"schemaVersion":2,"mediaType":"` + manifest + `","manifests":[]}`, false},
		{manifest, good, true},
		{manifest, `{"schemaVersion":2,"layers":[]}`, false},
		{"application/vnd.docker.distribution.manifest.v2+json", good, true},
		{"text/plain", `{}`, false},
		{index, `no`, false},
	} {
		if err := imagetest.Check(tt.mediaType, []byte(tt.data)); (err == nil) != tt.ok {
			t.Errorf("%s %s: %v", tt.mediaType, tt.data, err)
		}
	}
}
