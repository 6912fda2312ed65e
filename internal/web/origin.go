package web

import (
	"net"
	"net/url"
	"strings"
)

// SameOrigin says whether two URLs are on the same server, reached in the same way: scheme, host and port. What is meant
// for one server must not go to another one.
func SameOrigin(a, b *url.URL) bool {
	return a != nil && b != nil && Origin(a) == Origin(b)
}

// Origin is a server and how it is reached: "https://host:443", in lower case.
func Origin(u *url.URL) string {
	scheme, port := strings.ToLower(u.Scheme), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[scheme]
	}
	return scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
