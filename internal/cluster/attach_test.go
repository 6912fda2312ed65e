package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hako/internal/diag"
)

// streams is an API server that knows one thing: the standard input of a container.
type streams struct {
	protocol string
	// refuse is what it answers in place of opening a stream; limit how many bytes it takes before it hangs up.
	refuse *metav1.Status
	plain  string
	limit  int

	got    bytes.Buffer
	closed bool
	query  string
}

func (s *streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.query = r.URL.Path + "?" + r.URL.RawQuery
	switch {
	case s.refuse != nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(s.refuse.Code))
		_ = json.NewEncoder(w).Encode(s.refuse) // the client sees it
		return
	case s.plain != "":
		http.Error(w, s.plain, http.StatusBadGateway)
		return
	}
	c, err := (&websocket.Upgrader{Subprotocols: []string{s.protocol}}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close() //nolint:errcheck // the client sees it
	for {
		_, m, err := c.ReadMessage()
		if err != nil || s.limit > 0 && s.got.Len() > s.limit {
			return
		}
		if s.closed = bytes.Equal(m, []byte{255, 0}); s.closed {
			break
		}
		s.got.Write(m[1:])
		if m[0] != 0 || s.protocol != "v5.channel.k8s.io" && s.got.Len() == len(input()) {
			break
		}
	}
	_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{3}, `{"metadata":{},"status":"Success"}`...)) // the client sees it
}

func input() string { return strings.Repeat("0123456789", 20_000) }

func client(t *testing.T, s *streams) *Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	path := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: %q}}]\ncontexts: [{name: a, context: {cluster: a, namespace: name}}]\n", server.URL)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Connect(Options{Kubeconfig: path, Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestSendInput(t *testing.T) {
	t.Parallel()
	for _, protocol := range []string{"v5.channel.k8s.io", "v4.channel.k8s.io"} {
		s := &streams{protocol: protocol}
		sent, err := client(t, s).SendInput(t.Context(), "p", "executor", strings.NewReader(input()))
		if err != nil || sent != int64(len(input())) || s.got.String() != input() || s.closed != (protocol == "v5.channel.k8s.io") {
			t.Errorf("%s: %d bytes sent, %d came, closed: %v, %v", protocol, sent, s.got.Len(), s.closed, err)
		}
		if want := "/api/v1/namespaces/name/pods/p/attach?container=executor&stdin=true"; !strings.HasPrefix(s.query, want) {
			t.Errorf("%s, want %s", s.query, want)
		}
	}
}

// Of every failure is known whether anything was sent, and what to do about it.
func TestSendInputFails(t *testing.T) {
	t.Parallel()
	forbidden := &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: `pods "p" is forbidden: User "u" cannot get resource "pods/attach"`}
	for name, test := range map[string]struct {
		server *streams
		hint   string
		sent   bool
		is     func(error) bool
	}{
		"forbidden":            {&streams{refuse: forbidden}, "Have the rule for pods/attach", false, IsForbidden},
		"no WebSockets":        {&streams{plain: "no upgrade"}, "pass WebSockets, or send the context to a registry", false, func(err error) bool { return !IsTemporary(err) }},
		"another protocol":     {&streams{protocol: "v1.other"}, "pass WebSockets", false, func(err error) bool { return !IsTemporary(err) }},
		"hung up":              {&streams{protocol: "v5.channel.k8s.io", limit: 1}, "See whether the cluster at", true, IsTemporary},
		"container not ready":  {&streams{refuse: &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: "container not found"}}, "", false, apierrors.IsBadRequest},
		"server does not know": {&streams{refuse: &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "pods not found"}}, "", false, IsNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent, err := client(t, test.server).SendInput(t.Context(), "p", "executor", strings.NewReader(strings.Repeat(input(), 100)))
			var d *diag.Error
			if !errors.As(err, &d) || !strings.Contains(d.Hint, test.hint) || !test.is(err) || sent > 0 != test.sent {
				t.Errorf("%d sent, %v (%+v)", sent, err, d)
			}
		})
	}
}
