package report

import (
	"net/url"
	"path/filepath"
	"strings"

	"hako/internal/diag"
	"hako/internal/plan"
)

// The types are the part of SARIF 2.1.0 (OASIS Standard, 27 March 2020) that is written.
type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool        sarifTool         `json:"tool"`
	Invocations []sarifInvocation `json:"invocations"`
	Artifacts   []sarifArtifact   `json:"artifacts"`
	Results     []sarifResult     `json:"results"`
	ColumnKind  string            `json:"columnKind"`
}

type sarifTool struct {
	Driver sarifDriver `json:"driver"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version,omitempty"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID               string       `json:"id"`
	Name             string       `json:"name"`
	ShortDescription sarifText    `json:"shortDescription"`
	HelpURI          string       `json:"helpUri,omitempty"`
	Configuration    sarifDefault `json:"defaultConfiguration"`
}

type sarifDefault struct {
	Enabled bool   `json:"enabled"`
	Level   string `json:"level"`
}

type sarifInvocation struct {
	ExecutionSuccessful bool `json:"executionSuccessful"`
}

type sarifArtifact struct {
	Location sarifURI `json:"location"`
}

type sarifURI struct {
	URI string `json:"uri"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	RuleIndex int             `json:"ruleIndex"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifLocation struct {
	Physical sarifPhysical `json:"physicalLocation"`
}

type sarifPhysical struct {
	Artifact sarifURI     `json:"artifactLocation"`
	Region   *sarifRegion `json:"region,omitempty"`
}

type sarifRegion struct {
	StartLine int       `json:"startLine"`
	EndLine   int       `json:"endLine"`
	Snippet   sarifText `json:"snippet"`
}

// brokenRule is the rule of a Dockerfile that cannot be built at all.
const brokenRule = "DockerfileError"

func (r *Report) sarif() sarifLog {
	run := sarifRun{
		Tool:        sarifTool{Driver: sarifDriver{Name: "hako", Version: r.Version}},
		Invocations: []sarifInvocation{{ExecutionSuccessful: true}},
		Artifacts:   []sarifArtifact{{Location: sarifURI{r.uri()}}},
		Results:     []sarifResult{},
		ColumnKind:  "unicodeCodePoints",
	}
	index := map[string]int{}
	add := func(rule plan.Rule, level string) {
		index[rule.Name] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: rule.Name, Name: rule.Name, ShortDescription: sarifText{rule.Description}, HelpURI: rule.URL,
			Configuration: sarifDefault{Enabled: !rule.Experimental, Level: level},
		})
	}
	for _, rule := range plan.Rules() {
		add(rule, "warning")
	}
	add(plan.Rule{Name: brokenRule, Description: "The Dockerfile cannot be built"}, "error")
	for _, w := range r.Warnings {
		run.Results = append(run.Results, sarifResult{
			RuleID: w.Rule, RuleIndex: index[w.Rule], Level: "warning", Message: sarifText{w.Message}, Locations: r.sarifLocation(w.Span),
		})
	}
	if r.Err != nil {
		run.Results = append(run.Results, sarifResult{
			RuleID: brokenRule, RuleIndex: index[brokenRule], Level: "error",
			Message: sarifText{summary(r.Err)}, Locations: r.sarifLocation(span(r.Err)),
		})
	}
	return sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}}
}

func (r *Report) sarifLocation(s diag.Span) []sarifLocation {
	p := sarifPhysical{Artifact: sarifURI{r.uri()}}
	if s.Start != 0 {
		p.Region = &sarifRegion{StartLine: s.Start, EndLine: s.End, Snippet: sarifText{strings.Join(s.Source, "\n")}}
	}
	return []sarifLocation{{p}}
}

// uri names the Dockerfile relative to r.Dir if it is there: that is how findings meet the files of a repository.
func (r *Report) uri() string {
	name := filepath.Clean(r.Name)
	if filepath.IsAbs(name) {
		if rel, err := filepath.Rel(r.Dir, name); err == nil && filepath.IsLocal(rel) {
			name = rel
		} else {
			return (&url.URL{Scheme: "file", Path: name}).String()
		}
	}
	return (&url.URL{Path: name}).String()
}
