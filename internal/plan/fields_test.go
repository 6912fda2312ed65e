package plan

import (
	"maps"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	keywords "github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
)

// The fate of a field.
const (
	used    = "used"
	refused = "refused" // by refuse
	source  = "where it stands and how it was written: spans, texts, lint"
	outline = "documentation that nothing is built from"
)

// fieldTable says what becomes of every field of every instruction. A field that BuildKit adds is not in it, and the test fails:
// then it has to be carried out or refused, and listed.
func fieldTable() map[reflect.Type]map[string]string {
	base := func(more map[string]string) map[string]string {
		out := map[string]string{"withNameAndCode": source}
		maps.Copy(out, more)
		return out
	}
	return map[reflect.Type]map[string]string{
		reflect.TypeFor[instructions.Stage](): {
			"Name": used, "Commands": used, "BaseName": used, "Platform": used,
			"OrigCmd": source, "SourceCode": source, "Location": source, "Comments": source, "DocComment": "used by Targets",
		},
		reflect.TypeFor[instructions.AddCommand](): base(map[string]string{
			"SourcesAndDest": used, "Chown": used, "Chmod": used,
			"Link": used, "ExcludePatterns": used, "KeepGitDir": used, "Checksum": used, "Unpack": used,
		}),
		reflect.TypeFor[instructions.ArgCommand](): base(map[string]string{"Args": used}),
		reflect.TypeFor[instructions.CmdCommand](): base(map[string]string{"ShellDependantCmdLine": used}),
		reflect.TypeFor[instructions.CopyCommand](): base(map[string]string{
			"SourcesAndDest": used, "From": used, "Chown": used, "Chmod": used,
			"Link": used, "ExcludePatterns": used, "Parents": used,
		}),
		reflect.TypeFor[instructions.EntrypointCommand]():  base(map[string]string{"ShellDependantCmdLine": used}),
		reflect.TypeFor[instructions.EnvCommand]():         base(map[string]string{"Env": used}),
		reflect.TypeFor[instructions.ExposeCommand]():      base(map[string]string{"Ports": used}),
		reflect.TypeFor[instructions.HealthCheckCommand](): base(map[string]string{"Health": used}),
		reflect.TypeFor[instructions.LabelCommand]():       base(map[string]string{"Labels": used, "noExpand": "never set by the parser"}),
		reflect.TypeFor[instructions.MaintainerCommand]():  base(map[string]string{"Maintainer": used}),
		reflect.TypeFor[instructions.OnbuildCommand]():     base(map[string]string{"Expression": used}),
		reflect.TypeFor[instructions.RunCommand](): base(map[string]string{
			"ShellDependantCmdLine": used, "FlagsUsed": source, "withExternalData": "mounts, network: used; security, devices: refused",
		}),
		reflect.TypeFor[instructions.ShellCommand]():      base(map[string]string{"Shell": used}),
		reflect.TypeFor[instructions.StopSignalCommand](): base(map[string]string{"Signal": used}),
		reflect.TypeFor[instructions.UserCommand]():       base(map[string]string{"User": used}),
		reflect.TypeFor[instructions.VolumeCommand]():     base(map[string]string{"Volumes": used}),
		reflect.TypeFor[instructions.WorkdirCommand]():    base(map[string]string{"Path": used}),

		reflect.TypeFor[instructions.SourcesAndDest]():        {"DestPath": used, "SourcePaths": used, "SourceContents": used},
		reflect.TypeFor[instructions.SourceContent]():         {"Path": used, "Data": used, "Expand": used},
		reflect.TypeFor[instructions.ShellDependantCmdLine](): {"CmdLine": used, "Files": used, "PrependShell": used},
		reflect.TypeFor[instructions.Mount](): {
			"Type": used, "From": used, "Source": used, "Target": used, "ReadOnly": used, "SizeLimit": used, "CacheID": used,
			"CacheSharing": used, "Required": used, "Env": used, "Mode": used, "UID": used, "GID": used,
		},
		reflect.TypeFor[instructions.Device]():               {"Name": refused, "Required": refused},
		reflect.TypeFor[instructions.ShellInlineFile]():      {"Name": used, "Data": used, "Chomp": used},
		reflect.TypeFor[instructions.KeyValuePair]():         {"Key": used, "Value": used, "NoDelim": source},
		reflect.TypeFor[instructions.KeyValuePairOptional](): {"Key": used, "Value": used, "DocComment": outline},
	}
}

func TestEveryFieldIsUsedOrRefused(t *testing.T) {
	t.Parallel()
	for typ, want := range fieldTable() {
		got := map[string]string{}
		for f := range typ.Fields() {
			got[f.Name] = want[f.Name]
			if want[f.Name] == "" {
				got[f.Name] = "new: use or refuse it"
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: -table +type:\n%s", typ, diff)
		}
	}
}

// TestEveryInstructionIsKnown fails when BuildKit learns a new instruction.
func TestEveryInstructionIsKnown(t *testing.T) {
	t.Parallel()
	want := []string{
		"add", "arg", "cmd", "copy", "entrypoint", "env", "expose", "from", "healthcheck", "label", "maintainer",
		"onbuild", "run", "shell", "stopsignal", "user", "volume", "workdir",
	}
	got := slices.Sorted(maps.Keys(keywords.Commands))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
