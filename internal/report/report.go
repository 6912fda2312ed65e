// Package report writes what a check of a Dockerfile found: for people, as JSON in the form of BuildKit's front end,
// and as SARIF for programs that show the findings of analysers.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"hako/internal/diag"
	"hako/internal/plan"
)

// Report is what a check found.
type Report struct {
	// Name and Text are the Dockerfile's; Name is as the user gave it.
	Name string
	Text []byte
	// Warnings are the broken rules, in the order in which they are shown.
	Warnings []plan.Warning
	// Err is why the Dockerfile cannot be built, or nil.
	Err error
	// Version is hako's.
	Version string
	// Dir is the absolute directory that names in SARIF are relative to.
	Dir string
}

// Formats are the names that Write takes.
func Formats() []string { return []string{"text", "json", "sarif"} }

// Write writes r to w in a format. Text leaves out r.Err: it is told as any other error is.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "text":
		_, err := io.WriteString(w, r.text())
		return err
	case "json":
		return encode(w, r.json())
	case "sarif":
		return encode(w, r.sarif())
	}
	return fmt.Errorf("not a format of a report: %q (there are %s)", format, strings.Join(Formats(), ", "))
}

// encode writes v as indented JSON.
func encode(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// text is what docker build --check prints, in our way of showing a place.
func (r *Report) text() string {
	var b strings.Builder
	switch n := len(r.Warnings); {
	case n == 1:
		b.WriteString("Check complete, 1 warning has been found!\n")
	case n > 1:
		fmt.Fprintf(&b, "Check complete, %d warnings have been found!\n", n)
	case r.Err == nil:
		b.WriteString("Check complete, no warnings found.\n")
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s", w.Rule)
		if w.URL != "" {
			b.WriteString(" - " + w.URL)
		}
		b.WriteString("\n" + diag.Format(&diag.Error{What: w.Message, Span: w.Span.Alone()}) + "\n")
	}
	return b.String()
}

// jsonReport is the answer to BuildKit's "frontend.lint" request. What BuildKit does not have is marked.
type jsonReport struct {
	Warnings []jsonWarning `json:"warnings"`
	Sources  []jsonSource  `json:"sources"`
	Error    *jsonError    `json:"buildError,omitempty"`
}

type jsonWarning struct {
	Rule        string        `json:"ruleName"`
	Description string        `json:"description,omitempty"`
	URL         string        `json:"url,omitempty"`
	Detail      string        `json:"detail,omitempty"`
	Location    *jsonLocation `json:"location,omitempty"`
	jsonExcerpt
}

// jsonExcerpt is ours: it spares readers the sources.
type jsonExcerpt struct {
	File      string   `json:"file,omitempty"`
	StartLine int      `json:"startLine,omitempty"`
	EndLine   int      `json:"endLine,omitempty"`
	Source    []string `json:"source,omitempty"`
}

type jsonLocation struct {
	Ranges []jsonRange `json:"ranges,omitempty"`
}

type jsonRange struct {
	Start jsonLine `json:"start"`
	End   jsonLine `json:"end"`
}

type jsonLine struct {
	Line int `json:"line"`
}

type jsonSource struct {
	Filename string `json:"filename"`
	Language string `json:"language"`
	Data     []byte `json:"data"`
}

type jsonError struct {
	Message  string        `json:"message"`
	Location *jsonLocation `json:"location,omitempty"`
	jsonExcerpt
	Hint string `json:"hint,omitempty"` // ours
}

func (r *Report) json() jsonReport {
	out := jsonReport{Warnings: []jsonWarning{}, Sources: []jsonSource{{Filename: r.Name, Language: "Dockerfile", Data: r.Text}}}
	for _, w := range r.Warnings {
		out.Warnings = append(out.Warnings, jsonWarning{
			Rule: w.Rule, Description: w.Description, URL: w.URL, Detail: w.Message, Location: location(w.Span), jsonExcerpt: excerpt(w.Span),
		})
	}
	if r.Err != nil {
		out.Error = &jsonError{Message: r.Err.Error(), Location: location(span(r.Err)), jsonExcerpt: excerpt(span(r.Err)), Hint: hint(r.Err)}
	}
	return out
}

// location has a range for each line, as BuildKit's has. It is never nil: buildx would fail.
func location(s diag.Span) *jsonLocation {
	out := &jsonLocation{}
	for n := s.Start; n <= s.End && s.Start > 0; n++ {
		out.Ranges = append(out.Ranges, jsonRange{jsonLine{n}, jsonLine{n}})
	}
	return out
}

func excerpt(s diag.Span) jsonExcerpt {
	return jsonExcerpt{File: s.File, StartLine: s.Start, EndLine: s.End, Source: s.Source}
}

func span(err error) diag.Span {
	var e *diag.Error
	if errors.As(err, &e) {
		return e.Span
	}
	return diag.Span{}
}

// summary is the message and the hint, without the place.
func summary(err error) string {
	var e *diag.Error
	if errors.As(err, &e) {
		return diag.Format(&diag.Error{What: e.What, Cause: e.Cause, Hint: e.Hint})
	}
	return diag.Format(err)
}

func hint(err error) string {
	var e *diag.Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}

// jsonTargets is the answer to BuildKit's "frontend.targets" request.
type jsonTargets struct {
	Targets []jsonTarget `json:"targets"`
}

type jsonTarget struct {
	Name        string        `json:"name,omitempty"`
	Default     bool          `json:"default,omitempty"`
	Description string        `json:"description,omitempty"`
	Base        string        `json:"base,omitempty"`
	Platform    string        `json:"platform,omitempty"`
	Location    *jsonLocation `json:"location,omitempty"`
}

// WriteTargets lists the stages of a Dockerfile, as "text" or "json".
func WriteTargets(w io.Writer, stages []plan.TargetStage, format string) error {
	switch format {
	case "text":
		return targetTable(w, stages)
	case "json":
	default:
		return fmt.Errorf("not a format of a list of targets: %q (there are text, json)", format)
	}
	out := jsonTargets{Targets: []jsonTarget{}}
	for _, s := range stages {
		out.Targets = append(out.Targets, jsonTarget{
			Name: s.Name, Default: s.Default, Description: s.Description, Base: s.Base, Platform: s.Platform, Location: location(s.Span),
		})
	}
	return encode(w, out)
}

func targetTable(w io.Writer, stages []plan.TargetStage) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(tw, "TARGET\tDESCRIPTION\n")
	for _, s := range stages {
		name := s.Name
		if s.Default {
			name = strings.TrimSpace(name + " (default)")
		}
		fmt.Fprintf(tw, "%s\t%s\n", name, s.Description)
	}
	return tw.Flush()
}
