package cli

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/build"
	"hako/internal/image"
	"hako/internal/output"
)

func TestOutputs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		want func(*build.Request)
	}{
		{name: "a directory", args: []string{"-o", "out"}, want: func(r *build.Request) {
			r.Outputs.Exports = []output.Export{{Kind: output.Local, Dest: "out"}}
		}},
		{name: "quoted values", args: []string{"-o", `type=oci,"dest=a,b","name=x,y:1"`}, want: func(r *build.Request) {
			r.Outputs.Exports = []output.Export{{Kind: output.OCI, Dest: "a,b", Names: []string{"x", "y:1"}}}
		}},
		{name: "tags are names", args: []string{"-t", "a", "-t", "b:1", "-o", "-"}, want: func(r *build.Request) {
			r.Outputs.Exports = []output.Export{{Kind: output.Tar, Dest: "-"}}
			r.Outputs.Names = []string{"a", "b:1"}
		}},
		{name: "pushed and named", args: []string{"-t", "a", "-d", "b", "-o", "type=image,name=c,push=true,registry.insecure=true"}, want: func(r *build.Request) {
			r.Outputs.Names, r.Outputs.Destinations, r.Outputs.NoPush = []string{"a"}, []string{"b", "c"}, false
			r.Registry.InsecureRegistries = []string{"index.docker.io"}
		}},
		{name: "everything about the image", args: []string{
			"-o", "type=oci,dest=x,tar=false,compression=zstd,compression-level=7,force-compression=true,oci-mediatypes=true,annotation.a=1", "--annotation=index:b=2", "--image-format=oci",
		}, want: func(r *build.Request) {
			r.Outputs.Exports = []output.Export{{Kind: output.OCI, Dest: "x", Directory: true}}
			r.Compression, r.CompressionLevel, r.ForceCompression, r.Format = "zstd", 7, true, "oci"
			r.Annotations = image.Annotations{{Level: image.OnIndex, Key: "b", Value: "2"}, {Level: image.OnManifest, Key: "a", Value: "1"}}
		}},
		{name: "platforms and parts", args: []string{"-o", "type=local,dest=x,platform-split=false,src=/a", "-o", "type=tar,dest=y,platform-split="}, want: func(r *build.Request) {
			r.Outputs.Exports = []output.Export{{Kind: output.Local, Dest: "x", Split: output.SplitNever, Source: "/a"}, {Kind: output.Tar, Dest: "y", Split: output.SplitAlways}}
		}},
		{name: "squash", args: []string{"--no-push", "--squash"}, want: func(r *build.Request) { r.Squash = build.SquashNew }},
		{name: "squash all", args: []string{"--no-push", "--single-snapshot", "--squash-all"}, want: func(r *build.Request) { r.Squash = build.SquashAll }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, _, err := parse(t, nil, test.args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(defaults(test.want), got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

// FuzzOutput looks for texts that are read into something that no output has.
func FuzzOutput(f *testing.F) {
	for _, s := range []string{
		"out", "-", "type=local,dest=x", `type=oci,"dest=a,b"`, "type=image,name=a,push=true", "type=tar,dest=-,src=", "type=", ",", `"`,
		"type=docker,dest=x,annotation-index[linux/amd64].a=b", "type=registry,push-by-digest=,name=a",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := parseOutput(s)
		if err != nil {
			return
		}
		p := &outputPlan{}
		if err := p.add(o); err != nil {
			return
		}
		for _, e := range p.exports {
			if e.Dest == "" || !slices.Contains([]output.ExportKind{output.OCI, output.Docker, output.Local, output.Tar}, e.Kind) {
				t.Errorf("%q: %+v", s, e)
			}
		}
		if len(p.names)+len(p.digests)+len(p.exports) == 0 && !p.push && o.kind != "cacheonly" {
			t.Errorf("%q asks for nothing", s)
		}
	})
}
