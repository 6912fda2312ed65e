package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/attest"
	"hako/internal/build"
	"hako/internal/diag"
)

func readAttestations(t *testing.T, args string, buildArgs map[string]string) (build.Attestations, error) {
	t.Helper()
	vs := newValues()
	for arg := range strings.FieldsSeq(args) {
		name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
		if err := vs.byName[name].Set(value); err != nil {
			t.Fatal(err)
		}
	}
	c := &command{env: Env{Version: "v9"}, vs: vs}
	return c.attestations(vs, buildArgs)
}

func TestAttestations(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]build.Attestations{
		"":                                {},
		"--provenance=false --sbom=false": {},
		"--provenance=true":               {Provenance: attest.Max, Version: "v9"},
		"--provenance=max":                {Provenance: attest.Max, Version: "v9"},
		"--provenance=min --sbom=1":       {Provenance: attest.Min, SBOM: true, Version: "v9"},
		"--provenance=mode=min,builder-id=https://ci/1,reproducible=true,inline-only=true,filename=p.json,version=v1": {
			Provenance: attest.Min, BuilderID: "https://ci/1", Reproducible: true, InlineOnly: true, ProvenanceFile: "p.json", Version: "v9",
		},
		"--attest=type=sbom --attest=type=provenance,mode=max": {Provenance: attest.Max, SBOM: true, Version: "v9"},
		"--attest=type=provenance,disabled=true":               {},
	} {
		got, err := readAttestations(t, args, nil)
		if err != nil {
			t.Errorf("%s: %v", args, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", args, diff)
		}
	}
}

func TestAttestationsOfBuildArguments(t *testing.T) {
	t.Parallel()
	args := map[string]string{"BUILDKIT_ATTEST_SBOM": "", "BUILDKIT_ATTEST_PROVENANCE": "mode=min"}
	got, err := readAttestations(t, "", args)
	if diff := cmp.Diff(build.Attestations{Provenance: attest.Min, SBOM: true, Version: "v9"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	got, err = readAttestations(t, "--sbom=false --provenance=max", args)
	if diff := cmp.Diff(build.Attestations{Provenance: attest.Max, Version: "v9"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestAttestationsRefused(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"--provenance=most":                                 `--provenance=most: "most" is not KEY=VALUE`,
		"--provenance=mode=mid":                             `--provenance=mode=mid: there is no mode "mid"`,
		"--provenance=version=v0.2":                         "only version v1",
		"--provenance=reproducible=perhaps":                 "reproducible=perhaps is not a bool",
		"--provenance=capture-usage=true":                   `there is no option "capture-usage"`,
		"--provenance=mode=min,mode=max":                    "mode is given twice",
		"--sbom=generator=docker/scout":                     "scanners that come as images are not supported",
		"--sbom=docker/scout":                               "is not KEY=VALUE",
		"--attest=sbom":                                     `"sbom" is not KEY=VALUE`,
		"--attest=type=vex":                                 `there is no attestation of type "vex"`,
		"--attest=type=sbom --sbom=true":                    "--attest type=sbom and --sbom=true both say something about sbom",
		"--attest=type=sbom,disabled=perhaps":               "disabled=perhaps is not a bool",
		"--attest=type=provenance --attest=type=provenance": "both say something about provenance",
	} {
		_, err := readAttestations(t, args, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
			continue
		}
		if text := diag.Format(err); !strings.Contains(text, "\n") {
			t.Errorf("%s: no hint in %q", args, text)
		}
	}
}
