package ui

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// record is one line of the JSON format. "time" (RFC 3339), "level", "msg" and "type" are always there;
// "build" is there where several builds are shown together. The types and what else they have:
//
//	step      a step begins           step; msg is the instruction
//	output    a line of a command     step, stream (stdout, stderr); base64 if the line is not UTF-8: then msg is a rendering
//	done      a step succeeded        step, seconds, cached
//	failed    a step failed           step, seconds, error; exitCode of a command, 255 after a signal
//	again     a step begins again   step, seconds, cached: the cache has lost what it needs
//	miss      why a step was not     step, file, line, kind (new, instruction, removed, base, above, part, file, source, gone), subject,
//	          in the cache           change, cause: the step further up that it happened to
//	progress  bytes of a transfer     transfer, done and total in bytes, finished
//	warning   goes on, but look       file, line, endLine, source where it is about the Dockerfile; rule, description, url if it breaks a rule
//	log       anything else
//	error     why the build failed; the last line. error is the message on one line, msg all that text shows; file, line, endLine, source
//	          where it is about the Dockerfile, and the lines before and after those; exitCode and output, the last lines, of a command; hint, what to do
//
// Fields may be added; a reader must skip what it does not know.
type record struct {
	level Level

	Time     string  `json:"time"`
	LevelStr string  `json:"level"`
	Type     string  `json:"type"`
	Message  string  `json:"msg"`
	Build    string  `json:"build,omitempty"`
	Step     string  `json:"step,omitempty"`
	Stream   string  `json:"stream,omitempty"`
	Base64   string  `json:"base64,omitempty"`
	Seconds  float64 `json:"seconds,omitempty"`
	Cached   bool    `json:"cached,omitempty"`
	Error    string  `json:"error,omitempty"`
	Transfer string  `json:"transfer,omitempty"`
	Done     int64   `json:"done,omitempty"`
	Total    int64   `json:"total,omitempty"`
	Finished bool    `json:"finished,omitempty"`
	File     string  `json:"file,omitempty"`
	Line     int     `json:"line,omitempty"`

	EndLine     int      `json:"endLine,omitempty"`
	Source      []string `json:"source,omitempty"`
	Before      []string `json:"before,omitempty"`
	After       []string `json:"after,omitempty"`
	Rule        string   `json:"rule,omitempty"`
	Description string   `json:"description,omitempty"`
	URL         string   `json:"url,omitempty"`

	Kind    string `json:"kind,omitempty"`
	Subject string `json:"subject,omitempty"`
	Change  string `json:"change,omitempty"`
	Cause   string `json:"cause,omitempty"`

	ExitCode int      `json:"exitCode,omitempty"`
	Output   []string `json:"output,omitempty"`
	Hint     string   `json:"hint,omitempty"`
}

func (u *UI) json(r record) {
	r.Time = u.opts.Now().UTC().Format(time.RFC3339Nano)
	r.LevelStr = r.level.String()
	if !utf8.ValidString(r.Message) {
		r.Base64 = base64.StdEncoding.EncodeToString([]byte(r.Message))
	}
	var line strings.Builder
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		panic("a record of strings and numbers always encodes: " + err.Error())
	}
	u.write(u.opts.Stderr, line.String())
}
