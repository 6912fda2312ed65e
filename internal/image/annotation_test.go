package image_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
)

func TestParseAnnotation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want []image.Annotation
		err  string
	}{
		{text: "a=b", want: []image.Annotation{{Level: image.OnManifest, Key: "a", Value: "b"}}},
		{text: "a=b=c:d", want: []image.Annotation{{Level: image.OnManifest, Key: "a", Value: "b=c:d"}}},
		{text: "a=", want: []image.Annotation{{Level: image.OnManifest, Key: "a"}}},
		{text: "index:a=b", want: []image.Annotation{{Level: image.OnIndex, Key: "a", Value: "b"}}},
		{text: "index,manifest[linux/arm64/v8]:a=b", want: []image.Annotation{
			{Level: image.OnIndex, Key: "a", Value: "b"}, {Level: image.OnManifest, Platform: "linux/arm64", Key: "a", Value: "b"},
		}},
		{text: "manifest-descriptor[linux/arm/v7]:org.x=1", want: []image.Annotation{
			{Level: image.OnManifestDescriptor, Platform: "linux/arm/v7", Key: "org.x", Value: "1"},
		}},
		{text: "my:own=1", want: []image.Annotation{{Level: image.OnManifest, Key: "my:own", Value: "1"}}},
		{text: "index:a:b=1", want: []image.Annotation{{Level: image.OnIndex, Key: "a:b", Value: "1"}}},
		{text: "a", err: "is not KEY=VALUE"},
		{text: "=a", err: "is not KEY=VALUE"},
		{text: "index:=a", err: "has no key"},
		{text: "manifst:a=b", err: `unknown kind of annotation "manifst"`},
		{text: "index,mine:a=b", err: `unknown kind of annotation "mine"`},
		{text: "index[linux/amd64]:a=b", err: "an index is for all platforms"},
		{text: "manifest[linux/amd64:a=b", err: "write the platform as manifest[linux/amd64]"},
		{text: "manifest[]:a=b", err: "write the platform as manifest[linux/amd64]"},
		{text: "manifest[windows/amd64]:a=b", err: "only linux images can be built"},
	} {
		got, err := image.ParseAnnotation(tt.text)
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.text, err, tt.err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, d)
		}
	}
}

func TestParseAnnotationOption(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]image.Annotation{
		"annotation.a":                              {Level: image.OnManifest, Key: "a"},
		"annotation.A.b":                            {Level: image.OnManifest, Key: "A.b"},
		"annotation-index.a":                        {Level: image.OnIndex, Key: "a"},
		"annotation[linux/amd64].a":                 {Level: image.OnManifest, Platform: "linux/amd64", Key: "a"},
		"annotation-manifest-descriptor[arm64].a-b": {Level: image.OnManifestDescriptor, Platform: "linux/arm64", Key: "a-b"},
		"annotation-index-descriptor.a":             {Level: image.OnIndexDescriptor, Key: "a"},
	} {
		got, ok, err := image.ParseAnnotationOption(name, "")
		if d := cmp.Diff(want, got); d != "" || !ok || err != nil {
			t.Errorf("%s: %v, %v (-want +got):\n%s", name, ok, err, d)
		}
	}
	for _, name := range []string{"annotations.a", "annotation", "annotation.", "annotation- .a", "dest"} {
		if _, ok, _ := image.ParseAnnotationOption(name, ""); ok { //nolint:errcheck // it is none
			t.Errorf("%s is an annotation", name)
		}
	}
	if _, ok, err := image.ParseAnnotationOption("annotation-layer.a", ""); !ok || err == nil {
		t.Errorf("an unknown kind: %v, %v", ok, err)
	}
}

func TestAnnotationsOfADocument(t *testing.T) {
	t.Parallel()
	as := image.Annotations{
		{Level: image.OnManifest, Platform: "linux/arm64", Key: "a", Value: "arm"},
		{Level: image.OnManifest, Key: "a", Value: "first"}, {Level: image.OnManifest, Key: "a", Value: "all"},
		{Level: image.OnIndex, Key: "i", Value: "x"},
	}
	arm := ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	got := []map[string]string{
		as.On(image.OnManifest, arm), as.On(image.OnManifest, ocispec.Platform{OS: "linux", Architecture: "amd64"}),
		as.On(image.OnIndex, ocispec.Platform{}), as.On(image.OnManifestDescriptor, arm),
	}
	if d := cmp.Diff([]map[string]string{{"a": "arm"}, {"a": "all"}, {"i": "x"}, nil}, got); d != "" {
		t.Error(d)
	}
}

// FuzzAnnotation looks for texts that are read into something that cannot be.
func FuzzAnnotation(f *testing.F) {
	for _, s := range []string{"a=b", "index,manifest[linux/amd64]:a=b", "manifest[:=", "[]:a=", ",:,=", "index[x]:a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		as, err := image.ParseAnnotation(s)
		if err != nil {
			return
		}
		for _, a := range as {
			if a.Key == "" || !strings.HasSuffix(s, "="+a.Value) || a.Platform != "" && (a.Level == image.OnIndex || a.Level == image.OnIndexDescriptor) {
				t.Errorf("%q: %+v", s, a)
			}
		}
	})
}
