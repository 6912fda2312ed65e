package build

import (
	"net/url"
	"testing"
)

// TestTrustedServers: what the environment holds is for the servers that the command line names, in whatever form.
func TestTrustedServers(t *testing.T) {
	t.Parallel()
	vars := map[string]string{"GIT_TOKEN": "token"}
	for _, tt := range []struct {
		place, asked string
		want         bool
	}{
		{"git://example.org/r.git", "https://example.org/r.git", true},
		{"https://example.org/r.git#main", "https://example.org/other.git", true},
		{"https://example.org/r.git", "http://example.org/r.git", false},
		{"https://example.org/r.git", "https://example.org:8443/r.git", false},
		{"https://example.org/r.git", "https://sub.example.org/r.git", false},
		{"github.com/owner/name#main", "https://github.com/owner/name.git", true},
		{"github.com/owner/name", "http://github.com/owner/name.git", false},
		{"github.community/owner/name", "https://github.com/owner/name.git", false},
	} {
		l := &logins{secrets: func() secrets { return nil }, getenv: func(k string) string { return vars[k] }, trusted: map[string]bool{}}
		l.trust(tt.place)
		u, err := url.Parse(tt.asked)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := l.forGit(t.Context(), u, u); err != nil || (got != "") != tt.want {
			t.Errorf("a context %s: %s gets %q, %v", tt.place, tt.asked, got, err)
		}
	}
}
