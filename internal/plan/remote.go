package plan

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
)

// unnamed is what a file is called whose URL ends in no name, as for BuildKit.
const unnamed = "__unnamed__"

// gitRepository is what people call such a source.
const gitRepository = "git repository"

// remoteKind says what a source is that is not a path: "URL", "git repository", or empty.
func remoteKind(src string) string {
	if g, err := parseGit(src); g != nil || err != nil {
		return gitRepository
	}
	if strings.HasPrefix(src, "http://") || strings.HasPrefix(src, "https://") {
		return "URL"
	}
	return ""
}

// remoteSource is the source that src names if it is a URL or a git repository, and the path in it. It is nil for a path.
func remoteSource(c *copySpec, src string) (at string, s *Source, err error) {
	kind := remoteKind(src)
	switch {
	case kind == "":
		return "", nil, nil
	case !c.add:
		return "", nil, &diag.Error{
			What: fmt.Sprintf("COPY cannot read a %s: %s", kind, withoutSecrets(src)), Hint: "COPY reads files of the context; ADD reads from elsewhere.",
		}
	case kind == gitRepository:
		s, err = gitSource(c, src)
		return "/", s, err
	}
	h := &HTTPSource{URL: src, Filename: urlFilename(src)}
	if c.checksum != "" {
		if h.Checksum, err = digest.Parse(c.checksum); err != nil {
			return "", nil, &diag.Error{What: "ADD --checksum=" + c.checksum, Cause: err, Hint: "Write --checksum=sha256: and 64 hexadecimal digits."}
		}
	}
	return "/" + h.Filename, &Source{Name: withoutSecrets(src), HTTP: h}, nil
}

// urlFilename is the last name in the path of a URL.
func urlFilename(src string) string {
	u, err := url.Parse(src)
	if err != nil {
		return unnamed
	}
	if base := path.Base(u.Path); base != "." && base != "/" && base != ".." {
		return base
	}
	return unnamed
}

// gitSource is a git repository as src and the flags of ADD describe it.
func gitSource(c *copySpec, src string) (*Source, error) {
	g, err := parseGit(src)
	if err != nil {
		return nil, err
	}
	if c.keepGitDir != nil {
		if ref, _ := parseGitRef(src); ref != nil && ref.KeepGitDir != nil && g.KeepGitDir != *c.keepGitDir {
			return nil, &diag.Error{What: fmt.Sprintf("ADD --keep-git-dir=%t: the URL says otherwise", *c.keepGitDir), Hint: "Say it once."}
		}
		g.KeepGitDir = *c.keepGitDir
	}
	if c.checksum != "" {
		if g.Checksum != "" && g.Checksum != c.checksum {
			return nil, &diag.Error{What: fmt.Sprintf("ADD --checksum=%s: the URL says %s", c.checksum, g.Checksum), Hint: "Say it once."}
		}
		g.Checksum = c.checksum
	}
	return &Source{Name: withoutSecrets(g.Remote), Git: g}, g.check()
}

// withoutSecrets drops user, query and fragment of a URL.
func withoutSecrets(src string) string {
	src, _, _ = strings.Cut(src, "?")
	src, _, _ = strings.Cut(src, "#")
	scheme, rest, ok := strings.Cut(src, "://")
	if !ok {
		return src
	}
	host, tail, slash := strings.Cut(rest, "/")
	if slash {
		tail = "/" + tail
	}
	return scheme + "://" + host[strings.LastIndex(host, "@")+1:] + tail
}

// withoutLogin masks what may be secret in the user part of a URL: all of it by http, where it may be a token, else the password.
func withoutLogin(src string) string {
	scheme, rest, ok := strings.Cut(src, "://")
	host, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndex(host, "@")
	if !ok || at < 0 {
		return src
	}
	mask := "****"
	if user, _, password := strings.Cut(host[:at], ":"); scheme != "http" && scheme != "https" {
		if !password {
			return src
		}
		mask = user + ":" + mask
	}
	return scheme + "://" + mask + rest[at:]
}

// forDisplay masks what may be secret in a word of an instruction: logins, and the queries of URLs that are no git repository.
func forDisplay(word string) string {
	word = withoutLogin(word)
	if !strings.HasPrefix(word, "http://") && !strings.HasPrefix(word, "https://") {
		return word
	}
	base, query, ok := strings.Cut(word, "?")
	if !ok || query == "" || strings.HasSuffix(base, ".git") {
		return word
	}
	return base + "?…"
}
