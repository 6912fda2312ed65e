package cluster

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"hako/internal/diag"
)

// config is a kubeconfig with contexts by the names of their clusters; the first is current, and has the namespace team.
func config(names ...string) string {
	var clusters, contexts []string
	for i, name := range names {
		clusters = append(clusters, fmt.Sprintf("{name: %s, cluster: {server: 'https://%[1]s.example'}}", name))
		namespace := ""
		if i == 0 {
			namespace = ", namespace: team"
		}
		contexts = append(contexts, fmt.Sprintf("{name: %s, context: {cluster: %[1]s, user: u%s}}", name, namespace))
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [%s]\nusers: [{name: u, user: {token: t}}]\ncontexts: [%s]\ncurrent-context: %s\n",
		strings.Join(clusters, ", "), strings.Join(contexts, ", "), names[0])
}

// TestFind finds the cluster that kubectl would.
func TestFind(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		// files are written to a directory, DIR in what follows.
		files     map[string]string
		env       map[string]string
		o         Options
		server    string
		namespace string
		says      string // of the error, hint included
	}{
		"flag":                  {files: map[string]string{"a": config("one")}, o: Options{Kubeconfig: "DIR/a"}, server: "https://one.example", namespace: "team"},
		"flag before variable":  {files: map[string]string{"a": config("one"), "b": config("two")}, env: map[string]string{"KUBECONFIG": "DIR/b"}, o: Options{Kubeconfig: "DIR/a"}, server: "https://one.example", namespace: "team"},
		"variable before home":  {files: map[string]string{".kube/config": config("one"), "b": config("two")}, env: map[string]string{"KUBECONFIG": "DIR/b", "HOME": "DIR"}, server: "https://two.example", namespace: "team"},
		"home":                  {files: map[string]string{".kube/config": config("one")}, env: map[string]string{"HOME": "DIR"}, server: "https://one.example", namespace: "team"},
		"list":                  {files: map[string]string{"a": config("one"), "b": config("two")}, env: map[string]string{"KUBECONFIG": "DIR/a:DIR/b"}, server: "https://one.example", namespace: "team"},
		"context of the second": {files: map[string]string{"a": config("one"), "b": config("zero", "two")}, env: map[string]string{"KUBECONFIG": "DIR/a:DIR/b"}, o: Options{Context: "two"}, server: "https://two.example", namespace: "default"},
		"list with a gap":       {files: map[string]string{"b": config("two")}, env: map[string]string{"KUBECONFIG": "DIR/none:DIR/b:"}, server: "https://two.example", namespace: "team"},
		"namespace":             {files: map[string]string{"a": config("one")}, o: Options{Kubeconfig: "DIR/a", Namespace: "mine"}, server: "https://one.example", namespace: "mine"},
		"file before pod":       {files: map[string]string{".kube/config": config("one")}, env: map[string]string{"HOME": "DIR", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, server: "https://one.example", namespace: "team"},
		"legacy exec version":   {files: map[string]string{"a": strings.Replace(config("one"), "{token: t}", "{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}", 1)}, o: Options{Kubeconfig: "DIR/a"}, says: "v1alpha1"},

		"missing flag":     {o: Options{Kubeconfig: "DIR/none"}, says: "Name a file that exists with --kubeconfig."},
		"missing variable": {env: map[string]string{"KUBECONFIG": "DIR/none"}, says: "there is no kubeconfig (DIR/none), and this is no pod"},
		"nothing":          {says: "Name a kubeconfig with --kubeconfig or the variable KUBECONFIG."},
		"empty file":       {files: map[string]string{"a": ""}, env: map[string]string{"KUBECONFIG": "DIR/a"}, says: "there is no kubeconfig"},
		"no YAML":          {files: map[string]string{"a": "{"}, o: Options{Kubeconfig: "DIR/a"}, says: "kubectl config view --minify"},
		"unknown context":  {files: map[string]string{"a": config("one")}, o: Options{Kubeconfig: "DIR/a", Context: "two"}, says: `context "two" does not exist`},
		"missing authority": {
			files: map[string]string{"a": strings.Replace(config("one"), "server:", "certificate-authority: /none, server:", 1)}, o: Options{Kubeconfig: "DIR/a"}, says: "/none",
		},
		"removed provider": {files: map[string]string{"a": strings.Replace(config("one"), "{token: t}", "{auth-provider: {name: gcp}}", 1)}, o: Options{Kubeconfig: "DIR/a"}, says: "gcp"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for name, text := range test.files {
				write(t, filepath.Join(dir, name), text, 0o600)
			}
			o := test.o
			o.Kubeconfig = strings.ReplaceAll(o.Kubeconfig, "DIR", dir)
			o.Getenv = func(name string) string { return strings.ReplaceAll(test.env[name], "DIR", dir) }
			c, err := Connect(o)
			if test.says != "" {
				if err == nil || !strings.Contains(diag.Format(err), strings.ReplaceAll(test.says, "DIR", dir)) || !errors.As(err, new(*diag.Error)) {
					t.Errorf("got %v, want %q", err, test.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if c.Server != test.server || c.Namespace != test.namespace {
				t.Errorf("%s, namespace %s, want %s, %s", c.Server, c.Namespace, test.server, test.namespace)
			}
		})
	}
}

func write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), mode)); err != nil {
		t.Fatal(err)
	}
}

// TestCredentialPlugin takes the credentials from a program, as EKS, GKE and AKS have it, and asks it again when they have
// expired. What the program cannot give is said.
func TestCredentialPlugin(t *testing.T) {
	t.Parallel()
	calls := 0
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		calls++
		if got := r.Header.Get("Authorization"); got != fmt.Sprintf("Bearer token-%d", calls) {
			t.Errorf("request %d: %q", calls, got)
		}
		fmt.Fprint(w, `{"kind":"Job","apiVersion":"batch/v1","metadata":{"name":"j"}}`)
	}))
	defer api.Close()
	dir := t.TempDir()
	plugin := filepath.Join(dir, "plugin")
	// The token is good for no longer than a moment, so that each request asks for one.
	write(t, plugin, `#!/bin/sh
n=$(cat "$COUNT" 2>/dev/null || echo 0); n=$((n + 1)); echo $n >"$COUNT"
[ $n -lt 3 ] || { echo 'log in first' >&2; exit 1; }
echo '{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "token-'$n'", "expirationTimestamp": "2020-01-01T00:00:00Z"}}'
`, 0o700)
	authority := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}))
	text := strings.Replace(strings.Replace(config("one"), "https://one.example'", api.URL+"', certificate-authority-data: "+authority, 1), "{token: t}",
		fmt.Sprintf("{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never, env: [{name: COUNT, value: %s}]}}", filepath.Join(dir, "count")), 1)
	write(t, filepath.Join(dir, "config"), text, 0o600)
	c, err := Connect(Options{Kubeconfig: filepath.Join(dir, "config"), Getenv: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 2 {
		if _, err := c.Job(t.Context(), "j"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Job(t.Context(), "j"); err == nil || !strings.Contains(err.Error(), "plugin") {
		t.Errorf("without credentials: %v", err)
	}
}

// TestExplain says of each failure what to do, and whether it may pass.
func TestExplain(t *testing.T) {
	t.Parallel()
	resource := func(name string) schema.GroupResource { return schema.GroupResource{Resource: name} }
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errStopped)
	for name, test := range map[string]struct {
		ctx       context.Context
		err       error
		hint      string
		temporary bool
	}{
		"refused":      {err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}, hint: "can be reached: kubectl version", temporary: true},
		"unauthorized": {err: apierrors.NewUnauthorized("no"), hint: "Log in to the cluster again"},
		"right":        {err: apierrors.NewForbidden(resource("jobs"), "j", errors.New(`User "u" cannot create resource "jobs"`)), hint: "Have the Role of docs/submit.md bound"},
		"quota":        {err: apierrors.NewForbidden(resource("jobs"), "j", errors.New("exceeded quota: q")), hint: "Delete finished Jobs in namespace n"},
		"policy":       {err: apierrors.NewForbidden(resource("jobs"), "j", errors.New("denied")), hint: "Change what the cluster's policy refuses"},
		"namespace":    {err: apierrors.NewNotFound(resource("namespaces"), "n"), hint: "kubectl create namespace n"},
		"missing":      {err: apierrors.NewNotFound(resource("jobs"), "j")},
		"busy":         {err: apierrors.NewTooManyRequests("later", 1), temporary: true},
		"internal":     {err: apierrors.NewInternalError(errors.New("etcd")), temporary: true},
		"unavailable":  {err: apierrors.NewServiceUnavailable("restarting"), temporary: true},
		"timeout":      {err: apierrors.NewTimeoutError("etcd", 1), temporary: true},
		"invalid":      {err: apierrors.NewBadRequest("what")},
		"stopped":      {ctx: stopped, err: context.Canceled},
	} {
		ctx := test.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		c := &Client{Namespace: "n", Server: "https://one.example"}
		got := c.explain(ctx, "create the Job j", test.err)
		if test.ctx != nil {
			if !errors.Is(got, errStopped) {
				t.Errorf("%s: %v", name, got)
			}
			continue
		}
		text := diag.Format(got)
		if !strings.Contains(text, "create the Job j") || !strings.Contains(text, test.hint) || IsTemporary(got) != test.temporary {
			t.Errorf("%s: temporary: %v, want %v and %q: %s", name, IsTemporary(got), test.temporary, test.hint, text)
		}
	}
}

var errStopped = errors.New("stopped")
