package imagesource

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"hako/internal/image"
	"hako/internal/registry"
)

// FuzzDecode feeds manifests and configurations to everything that reads them. What is accepted must be sound.
func FuzzDecode(f *testing.F) {
	const sum = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	layer := `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + sum + `","size":1}`
	config := `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"` + sum + `","size":1}`
	for _, m := range []string{
		`{"schemaVersion":2,"config":` + config + `,"layers":[` + layer + `]}`,
		`{"schemaVersion":2,"config":` + config + `,"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + sum + `","size":1,"platform":{"os":"linux","architecture":"amd64"}}]}`,
		`{"schemaVersion":2,"manifests":null}`,
		`{"schemaVersion":1,"fsLayers":[]}`,
		`[]`,
	} {
		for _, c := range []string{
			`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + sum + `"]}}`,
			`{"rootfs":{"type":"layers","diff_ids":["x"]},"config":{"Healthcheck":{"Interval":-1}}}`,
			`{}`,
			`null`,
		} {
			f.Add([]byte(m), []byte(c), "application/vnd.oci.image.manifest.v1+json")
		}
	}
	f.Fuzz(func(t *testing.T, manifest, config []byte, mediaType string) {
		doc, err := decodeDocument(&registry.Manifest{MediaType: mediaType, Data: manifest})
		if err != nil {
			return
		}
		if doc.index != nil {
			for _, d := range doc.index.Manifests {
				_ = isImage(d) // must not panic
			}
			return
		}
		c, err := image.DecodeConfig(config)
		if err != nil {
			return
		}
		layers, err := pairLayers(doc.manifest.Layers, c.RootFS.DiffIDs)
		if err != nil {
			return
		}
		if len(layers) != len(doc.manifest.Layers) || len(layers) > maxLayers {
			t.Errorf("%d layers of %d", len(layers), len(doc.manifest.Layers))
		}
		for _, l := range layers {
			if l.Digest.Validate() != nil || l.DiffID.Validate() != nil || l.Digest.Algorithm() != digest.SHA256 || l.Size <= 0 {
				t.Errorf("layer %+v", l.Descriptor)
			}
			if again, err := distributable(l.MediaType); err != nil || again != l.MediaType {
				t.Errorf("media type %q", l.MediaType)
			}
		}
	})
}
