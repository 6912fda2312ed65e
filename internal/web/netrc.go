package web

import (
	"encoding/base64"
	"strings"
)

// Login is a user with a password, as of one machine in a .netrc file.
type Login struct{ User, Password string }

// Authorization is the value of the header of that name (RFC 7617), or "" if there is no login.
func (l Login) Authorization() string {
	if l == (Login{}) {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.User+":"+l.Password))
}

// FindLogin looks up a host in the text of a .netrc file, as ftp(1) and curl read it: the first machine of that name,
// or the default entry. It returns the zero Login if there is neither.
func FindLogin(netrc, host string) Login {
	words := netrcWords(netrc)
	for i := 0; i < len(words); i++ {
		switch {
		case words[i] == "default":
			return loginAfter(words[i+1:])
		case words[i] == "machine" && i+1 < len(words):
			i++
			if strings.EqualFold(words[i], host) {
				return loginAfter(words[i+1:])
			}
		}
	}
	return Login{}
}

// loginAfter reads an entry up to the next one.
func loginAfter(words []string) Login {
	var l Login
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "login":
			l.User = words[i+1]
		case "password":
			l.Password = words[i+1]
		case "account":
		default:
			return l
		}
	}
	return l
}

// netrcWords splits the text into words, some of them in quotes, without comments and the bodies of macros.
func netrcWords(text string) []string {
	var out []string
	macro := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			macro = false
		}
		if macro || strings.HasPrefix(line, "#") {
			continue
		}
		for line != "" {
			var word string
			word, line = netrcWord(line)
			if word == "macdef" {
				macro = true
				break
			}
			out = append(out, word)
		}
	}
	return out
}

// netrcWord cuts the first word off line. In quotes, \" and \\ stand for themselves.
func netrcWord(line string) (word, rest string) {
	if line[0] != '"' {
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			return line, ""
		}
		return line[:end], strings.TrimLeft(line[end:], " \t")
	}
	var b strings.Builder
	i := 1
	for ; i < len(line) && line[i] != '"'; i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String(), strings.TrimLeft(line[min(i+1, len(line)):], " \t")
}
