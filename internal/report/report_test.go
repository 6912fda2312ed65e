package report_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"hako/internal/diag"
	"hako/internal/plan"
	"hako/internal/report"
)

var update = flag.Bool("update", false, "rewrite golden files")

func reports() map[string]report.Report {
	at := func(start int, lines ...string) diag.Span {
		return diag.Span{File: "sub dir/Dockerfile", Start: start, End: start + len(lines) - 1, Source: lines}
	}
	text := "FROM x AS A\nLABEL a=b \\\n  c=\"$d <&>\"\n"
	warnings := []plan.Warning{
		{Rule: "StageNameCasing", Description: "Stage names should be lowercase", URL: "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/",
			Message: "Stage name 'A' should be lowercase", Span: at(1, "FROM x AS A")},
		{Rule: "UndefinedVar", Description: "Variables should be defined before their use", URL: "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
			Message: "Usage of undefined variable '$d\x1b[31m'", Span: at(2, `LABEL a=b \`, `  c="$d <&>"`)},
		{Rule: "InvalidBaseImagePlatform", Description: "Base image platform does not match expected target platform", Message: "Base image x …", Span: diag.Span{File: "sub dir/Dockerfile"}},
	}
	failure := &diag.Error{What: "FROM x", Cause: errors.New("not found"), Span: at(1, "FROM x AS A"), Hint: "Did you mean y?"}
	base := report.Report{Name: "sub dir/Dockerfile", Text: []byte(text), Version: "v1.2.3", Dir: "/src"}
	with := func(name string, w []plan.Warning, err error) report.Report {
		r := base
		r.Name, r.Warnings, r.Err = name, w, err
		return r
	}
	return map[string]report.Report{
		"nothing":  base,
		"one":      with("/src/sub dir/Dockerfile", warnings[:1], nil),
		"many":     with("sub dir/Dockerfile", warnings, nil),
		"failure":  with("/elsewhere/Dockerfile", nil, failure),
		"both":     with("../Dockerfile", warnings[:1], failure),
		"noplaces": with("Dockerfile", nil, errors.New("no place")),
	}
}

// TestFormats compares each report in each format with testdata.
func TestFormats(t *testing.T) {
	t.Parallel()
	for name, r := range reports() {
		for _, format := range report.Formats() {
			t.Run(name+"."+format, func(t *testing.T) {
				t.Parallel()
				var got strings.Builder
				if err := r.Write(&got, format); err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", name+"."+format)
				if *update {
					if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(string(want), got.String()); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// TestSARIFIsValid checks against the schema of the standard: OASIS, SARIF 2.1.0 errata 01, unchanged.
func TestSARIFIsValid(t *testing.T) {
	t.Parallel()
	schema, err := jsonschema.NewCompiler().Compile("testdata/sarif-schema-2.1.0.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range reports() {
		var text strings.Builder
		if err := r.Write(&text, "sarif"); err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJSONIsBuildKits(t *testing.T) {
	t.Parallel()
	r := reports()["many"]
	var text strings.Builder
	if err := r.Write(&text, "json"); err != nil {
		t.Fatal(err)
	}
	// The names and types of BuildKit v0.34.2's lint.LintResults, as far as buildx reads them.
	var got struct {
		Warnings []struct {
			RuleName, Description, URL, Detail string
			Location                           struct {
				SourceIndex int
				Ranges      []struct{ Start, End struct{ Line int } }
			}
		}
		Sources []struct {
			Filename, Language string
			Data               []byte
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &got); err != nil {
		t.Fatal(err)
	}
	if string(got.Sources[0].Data) != string(r.Text) || got.Sources[0].Filename != r.Name {
		t.Errorf("source is %+v", got.Sources[0])
	}
	if w := got.Warnings[1]; w.RuleName != "UndefinedVar" || len(w.Location.Ranges) != 2 || w.Location.Ranges[1].Start.Line != 3 {
		t.Errorf("warning is %+v", w)
	}
}

func TestUnknownFormat(t *testing.T) {
	t.Parallel()
	r := report.Report{}
	if err := r.Write(&strings.Builder{}, "xml"); err == nil {
		t.Error("no error")
	}
	if err := report.WriteTargets(&strings.Builder{}, nil, "sarif"); err == nil {
		t.Error("no error")
	}
}
