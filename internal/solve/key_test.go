package solve

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/plan"
)

// sampleSteps are steps with everything in them that keys are made of.
func sampleSteps() map[string]*plan.Step {
	stage := &plan.Stage{Name: "s"}
	source := &plan.Source{Name: "git", Git: &plan.GitSource{Remote: "r"}}
	amd64 := ocispec.Platform{OS: "linux", Architecture: "amd64"}
	return map[string]*plan.Step{
		"run": {Platform: amd64, Env: []string{"PATH=/bin"}, Op: &plan.Run{
			Args: []string{"/bin/sh", "-c", "make"}, Env: []string{"PATH=/bin", "A=1", "http_proxy=p"}, Dir: "/w", User: "me",
			Files: []plan.InlineFile{{Path: "/dev/pipes/EOF", Data: []byte("x")}},
			Mounts: []plan.Mount{
				{Target: "/src", Source: &plan.BindMount{Path: "/"}, ReadOnly: true},
				{Target: "/c", Source: &plan.CacheMount{ID: "c", From: &plan.From{Stage: stage}, Path: "/x"}},
				{Target: "/s", Source: &plan.SecretMount{ID: "token"}},
			},
		}},
		"copy":    {Platform: amd64, Op: &plan.Copy{Paths: []string{"/a", "/b*"}, From: plan.From{Stage: stage}, Dest: "/d/", Chown: "1:2"}},
		"add":     {Platform: amd64, Op: &plan.Copy{Add: true, Paths: []string{"/"}, Fetched: []*plan.Source{source}, Dest: "/d/"}},
		"mixed":   {Platform: amd64, Op: &plan.Copy{Add: true, Paths: []string{"/", "/a"}, Fetched: []*plan.Source{source, nil}, Dest: "/d/"}},
		"inline":  {Platform: amd64, Op: &plan.Copy{Inline: []plan.InlineFile{{Path: "f", Data: []byte("y")}}, Dest: "/f"}},
		"workdir": {Platform: amd64, Op: &plan.Mkdir{Path: "/w", User: "me"}},
	}
}

// If this test has to change because a key looks different, all caches are lost: the version in keyVersion says so.
func TestOperationsGolden(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"add":     `Copy{Add=true;Paths=[1:1:/Fetched=[1:0:Dest=3:/d/}`,
		"copy":    `Copy{From=0:Paths=[2:2:/a3:/b*Dest=3:/d/Chown=3:1:2}`,
		"inline":  `Copy{Inline=[1:{Path=1:fData=[1:121;}Dest=2:/f}`,
		"mixed":   `Copy{Add=true;Paths=[2:1:/2:/aFetched=[2:0:0:Dest=3:/d/}`,
		"run":     `linux/amd64;Run{Args=[3:7:/bin/sh2:-c4:makeEnv=[2:9:PATH=/bin3:A=1Dir=2:/wUser=2:meMounts=[3:{Target=4:/srcSource=BindMount{Path=1:/}ReadOnly=true;}{Target=2:/cSource=CacheMount{ID=1:cFrom=From0:Path=2:/x}}{Target=2:/sSource=SecretMount{ID=5:token}}Files=[1:{Path=14:/dev/pipes/EOFData=[1:120;}}`,
		"workdir": `Mkdir{Path=2:/wUser=2:me}`,
	}
	got := map[string]string{}
	for name, s := range sampleSteps() {
		got[name] = operation(s)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// What a key is made of is what the plan says that a step reads.
func TestReadsAreThoseOfThePlan(t *testing.T) {
	t.Parallel()
	for name, s := range sampleSteps() {
		got := map[plan.From]int{}
		for _, r := range reads(s.Op) {
			got[r.from]++
		}
		for _, f := range s.Reads() {
			got[f]--
		}
		for f, n := range got {
			if n != 0 {
				t.Errorf("%s: %v is read %+d times too often", name, f, n)
			}
		}
	}
}
