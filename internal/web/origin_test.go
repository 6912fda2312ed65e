package web_test

import (
	"net/url"
	"testing"

	"hako/internal/web"
)

func TestSameOrigin(t *testing.T) {
	t.Parallel()
	for pair, want := range map[[2]string]bool{
		{"https://h/a", "https://H:443/b"}:      true,
		{"http://h:80/", "HTTP://u:p@h"}:        true,
		{"https://h", "http://h"}:               false,
		{"https://h", "https://h:8443"}:         false,
		{"https://h", "https://sub.h"}:          false,
		{"https://h", "https://h.evil"}:         false,
		{"http://[::1]:80/", "http://[::1]/x"}:  true,
		{"http://h:443", "https://h:443"}:       false,
		{"https://h@evil.example", "https://h"}: false,
	} {
		a, err := url.Parse(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		b, err := url.Parse(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		if got := web.SameOrigin(a, b); got != want {
			t.Errorf("%s and %s: %v", pair[0], pair[1], got)
		}
	}
	if web.SameOrigin(nil, nil) {
		t.Error("nil")
	}
}
