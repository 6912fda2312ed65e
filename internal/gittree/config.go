package gittree

import (
	"fmt"
	"strings"
)

// configValue is one variable of a file in the form of git's configuration.
type configValue struct {
	// section and key are in lower case; sub is as it is.
	section, sub, key, value string
}

// parseConfig calls fn for each variable, in order (git-config(1), "syntax").
func parseConfig(text string, fn func(configValue)) error {
	p := &configParser{rest: strings.TrimPrefix(text, "\uFEFF"), line: 1}
	for {
		p.blank()
		switch {
		case p.rest == "":
			return nil
		case p.rest[0] == '[':
			if err := p.section(); err != nil {
				return fmt.Errorf("line %d: %w", p.line, err)
			}
		default:
			if err := p.variable(fn); err != nil {
				return fmt.Errorf("line %d: %w", p.line, err)
			}
		}
	}
}

type configParser struct {
	rest string
	line int
	at   configValue // the section
}

var errConfig = fmt.Errorf("it is not in the form of git's configuration")

// next takes one byte; 0 is the end.
func (p *configParser) next() byte {
	if p.rest == "" {
		return 0
	}
	c := p.rest[0]
	p.rest = p.rest[1:]
	if c == '\n' {
		p.line++
	}
	return c
}

// blank skips white space and comments.
func (p *configParser) blank() {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '#' || c == ';':
			_, after, _ := strings.Cut(p.rest, "\n")
			p.rest = after
			p.line++
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			p.next()
		default:
			return
		}
	}
}

// section reads [name] or [name "sub"].
func (p *configParser) section() error {
	p.next()
	end := strings.IndexAny(p.rest, "]\" \t\n")
	if end < 0 {
		return errConfig
	}
	name := strings.ToLower(p.rest[:end])
	p.at = configValue{section: name}
	p.rest = strings.TrimLeft(p.rest[end:], " \t")
	if section, sub, ok := strings.Cut(name, "."); ok { // the old form
		p.at.section, p.at.sub = section, sub
	}
	if strings.HasPrefix(p.rest, `"`) {
		p.next()
		sub, err := p.quoted()
		if err != nil {
			return err
		}
		p.at.sub = sub
	}
	if p.next() != ']' {
		return errConfig
	}
	return nil
}

// quoted reads up to the closing quote of a section's name.
func (p *configParser) quoted() (string, error) {
	var b strings.Builder
	for {
		switch c := p.next(); c {
		case 0, '\n':
			return "", errConfig
		case '"':
			return b.String(), nil
		case '\\':
			b.WriteByte(p.next())
		default:
			b.WriteByte(c)
		}
	}
}

// variable reads "key = value" or "key".
func (p *configParser) variable(fn func(configValue)) error {
	end := strings.IndexFunc(p.rest, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
	})
	if end == 0 || p.at.section == "" {
		return errConfig
	}
	if end < 0 {
		end = len(p.rest)
	}
	v := p.at
	v.key = strings.ToLower(p.rest[:end])
	p.rest = strings.TrimLeft(p.rest[end:], " \t")
	if !strings.HasPrefix(p.rest, "=") {
		v.value = "true"
		fn(v)
		if c := p.next(); c != '\n' && c != 0 && c != '\r' && c != '#' && c != ';' {
			return errConfig
		}
		return nil
	}
	p.next()
	value, err := p.value()
	v.value = value
	if err == nil {
		fn(v)
	}
	return err
}

// value reads to the end of the line; parts of it may be in quotes, and a backslash continues the line.
func (p *configParser) value() (string, error) {
	p.rest = strings.TrimLeft(p.rest, " \t")
	var b strings.Builder
	inQuotes, kept := false, 0 // kept is how much of b does not end in blanks
	for {
		c := p.next()
		switch {
		case c == 0 || c == '\n':
			if inQuotes {
				return "", errConfig
			}
			return b.String()[:kept], nil
		case c == '"':
			inQuotes = !inQuotes
			continue
		case c == '\\':
			ok, err := p.escape(&b)
			if err != nil {
				return "", err
			}
			if ok {
				kept = b.Len()
			}
			continue
		case !inQuotes && (c == '#' || c == ';'):
			_, after, _ := strings.Cut(p.rest, "\n")
			p.rest = after
			p.line++
			return b.String()[:kept], nil
		}
		b.WriteByte(c)
		if inQuotes || c != ' ' && c != '\t' && c != '\r' {
			kept = b.Len()
		}
	}
}

// escape reads what follows a backslash, and tells whether it stands for a character.
func (p *configParser) escape(b *strings.Builder) (bool, error) {
	switch c := p.next(); c {
	case '\n':
		return false, nil
	case 'n':
		b.WriteByte('\n')
	case 't':
		b.WriteByte('\t')
	case 'b':
		b.WriteByte('\b')
	case '"', '\\':
		b.WriteByte(c)
	default:
		return false, errConfig
	}
	return true, nil
}
