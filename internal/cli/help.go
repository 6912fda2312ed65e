package cli

import (
	"fmt"
	"strings"
)

// usage is the text of --help.
func usage(line string, kaniko bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", line)
	if kaniko {
		b.WriteString("  executor push | login | logout | version | doctor | completion | help\n")
	}
	sections := []struct {
		title  string
		status status
	}{
		{"Flags", used},
		{"Accepted, without effect because it is always so", noEffect},
	}
	for _, s := range sections {
		lines := ""
		for _, f := range flags() {
			if f.status == s.status && !f.hidden {
				lines += helpLine(f)
			}
		}
		if lines != "" {
			fmt.Fprintf(&b, "\n%s:\n%s", s.title, lines)
		}
	}
	b.WriteString("\nText values are given as --flag=value or --flag value, bools as --flag or --flag=value.\n")
	return b.String()
}

func helpLine(f flag) string {
	name := "      --" + f.name
	if f.short != "" {
		name = "  -" + f.short + ", --" + f.name
	}
	if f.kind != boolKind {
		name += " " + (&value{flag: f}).Type()
	}
	text := f.help
	if f.def != "" && f.def != "false" {
		text += " (default " + f.def + ")"
	}
	return fmt.Sprintf("%-50s %s\n", name, text)
}

// reference is docs/flags.md.
func reference() string {
	var b strings.Builder
	b.WriteString("# Flags\n\nMade by `go test ./internal/cli -run TestReference -update` from the flag table in `internal/cli/flags.go`; do not edit.\n\n")
	b.WriteString("Flags of `hako build` and of `executor`. Multi flags are repeated, and each value is taken verbatim; bools are `--flag` or `--flag=true|false`.\n")
	b.WriteString("Who has it: G GoogleContainerTools/kaniko, C chainguard-forks/kaniko, O osscontainertools/kaniko, D docker build, H only hako.\n")
	b.WriteString("\n")
	b.WriteString(flagTable(flags()))
	b.WriteString("\n## Of hako submit\n\nThese, and those above but for what needs this machine; see [submit.md](submit.md).\n\n")
	b.WriteString(flagTable(submitFlags()))
	return b.String()
}

// flagTable is a table of flags.
func flagTable(of []flag) string {
	var b strings.Builder
	b.WriteString("| flag | type | default | meaning | who | here |\n|---|---|---|---|---|---|\n")
	for _, f := range of {
		name := "`--" + f.name + "`"
		if f.short != "" {
			name += ", `-" + f.short + "`"
		}
		here := map[status]string{used: "works", noEffect: "no effect: " + f.why}[f.status]
		if f.alias != "" {
			here = "as `--" + f.alias + "`"
		}
		def := ""
		if f.def != "" {
			def = "`" + f.def + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", name, (&value{flag: f}).Type(), def, strings.ReplaceAll(f.help, "|", `\|`), f.forks, here)
	}
	return b.String()
}

// migration is the part of docs/kaniko.md that follows from the tables: what of kaniko's has no effect and why, and the environment.
func migration() string {
	var b strings.Builder
	b.WriteString("\n## Flags without effect\n\nEvery flag of kaniko's is known; [flags.md](flags.md) says what each does. These are accepted, because what they ask for is the case anyway, or has no place here.\n\n")
	b.WriteString("| flag | what it asks for | why it has no effect |\n|---|---|---|\n")
	for _, f := range flags() {
		if f.status == noEffect && f.alias == "" && strings.ContainsAny(f.forks, "GCO") {
			fmt.Fprintf(&b, "| `--%s` | %s | %s |\n", f.name, cell(f.help), cell(f.why))
		}
	}
	b.WriteString("\n## Old spellings\n\n")
	for _, f := range flags() {
		if f.alias != "" && strings.ContainsAny(f.forks, "GCO") {
			fmt.Fprintf(&b, "- `--%s` is `--%s`, with a warning\n", f.name, f.alias)
		}
	}
	b.WriteString("\n## Environment\n\n| variable | here | who |\n|---|---|---|\n")
	for _, v := range environment() {
		here := v.help
		if v.why != "" {
			here = "no effect: " + v.why
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.name, cell(here), v.forks)
	}
	b.WriteString("\nAny other variable is only looked at if `--build-arg NAME` names it.\n")
	return b.String()
}

// cell is text as a cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
