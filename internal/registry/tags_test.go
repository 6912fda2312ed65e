package registry_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"hako/internal/registry"
)

// A registry whose list of tags never ends is not listened to until the memory is full.
func TestTagsWithoutEnd(t *testing.T) {
	t.Parallel()
	pages := 0
	page := `{"tags":["` + strings.Repeat(`","`, 2<<20) + `"]}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/tags/list") {
			pages++
			w.Header().Set("Link", fmt.Sprintf(`</v2/a/tags/list?last=%d>; rel="next"`, pages))
			_, _ = w.Write([]byte(page))
		}
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	_, err := open(t, quick(), host+"/a", registry.Pull).Tags(t.Context())
	wantError(t, err, host, "list the tags of HOST/a: the registry never comes to an end", "")
	if pages > 10 {
		t.Errorf("%d pages were asked for", pages)
	}
}
