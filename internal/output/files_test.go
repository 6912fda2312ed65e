package output

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What ends up in a pod's status is whole, however many names and annotations an image has.
func TestBriefMetadata(t *testing.T) {
	t.Parallel()
	var names []string
	annotations := map[string]string{}
	for i := range 100 {
		names = append(names, fmt.Sprintf("registry.example.com/some/team/with/a/long/name/app-%d:1", i))
		annotations[names[i]] = names[i]
	}
	d := digest.FromString("x")
	m := metadata{ConfigDigest: d, Digest: d, Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: 5, Annotations: annotations}, Name: strings.Join(names, ",")}
	if whole, err := json.Marshal(m); err != nil || len(whole) <= MaxTermination {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	data, err := m.brief()
	if err != nil || len(data) > MaxTermination {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	got, err := ReadMetadata(data)
	if err != nil || got.Top.Digest != d || got.Top.Size != 5 || got.Config != d || len(got.Names) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
