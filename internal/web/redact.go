package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// RedactURL is the URL without user, password, fragment, and the values of query parameters, which may all be secret:
// all but those of the parameters in plain.
func RedactURL(u *url.URL, plain ...string) string {
	if u == nil {
		return ""
	}
	clean := *u
	clean.User = nil
	clean.Fragment, clean.RawFragment = "", ""
	query := clean.Query()
	for key := range query {
		if !slices.Contains(plain, key) {
			query.Set(key, "REDACTED")
		}
	}
	clean.RawQuery = query.Encode()
	return clean.String()
}

// FirstLine is the first non-empty line of what a server says, without control characters, at most 200 characters long.
// Of URLs in it is left what redact says.
func FirstLine(s string, redact func(*url.URL) string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	line = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, line)
	if runes := []rune(line); len(runes) > 200 {
		line = string(runes[:200]) + "…"
	}
	return RedactText(strings.TrimSpace(line), redact)
}

// RedactText replaces what looks like a URL in free text by what redact says of it.
func RedactText(s string, redact func(*url.URL) string) string {
	words := strings.Split(s, " ")
	for i, w := range words {
		if !strings.Contains(w, "://") {
			continue
		}
		start := max(strings.LastIndexAny(w[:strings.Index(w, "://")], `"'(<=`)+1, 0)
		end := len(strings.TrimRight(w, `"'),.;:>`))
		u, err := url.Parse(w[start:end])
		if err != nil {
			words[i] = "REDACTED"
			continue
		}
		words[i] = w[:start] + redact(u) + w[end:]
	}
	return strings.Join(words, " ")
}

// Answer is what an answer of server that is none is called: "the server answers 404 Not Found: …"; message is what it said, without secrets, and may be empty.
func Answer(server string, status int, message string) string {
	s := strings.TrimRight(fmt.Sprintf("%s answers %d %s", server, status, http.StatusText(status)), " ")
	if message != "" {
		s += ": " + message
	}
	return s
}

// RedactError takes the URLs out of errors of net/http, and cuts errors that quote a server's answer.
func RedactError(err error, redact func(*url.URL) string) error {
	var u *url.Error
	if !errors.As(err, &u) {
		return err
	}
	parsed, perr := url.Parse(u.URL)
	if perr != nil {
		return fmt.Errorf("%s: %w", u.Op, OneLine(u.Err, redact))
	}
	return fmt.Errorf("%s %s: %w", u.Op, redact(parsed), OneLine(RedactError(u.Err, redact), redact))
}

// OneLine cuts errors that quote a server's answer.
func OneLine(err error, redact func(*url.URL) string) error {
	if text := err.Error(); strings.Contains(text, "\n") {
		return errors.New(FirstLine(text, redact))
	}
	return err
}
