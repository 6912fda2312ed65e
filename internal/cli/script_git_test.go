package cli

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"hako/internal/gittree/gittest"
)

// gitServer makes a commit of a directory and serves it as /r.git, by git's own http server behind TLS. It wants to see the
// user u with the password p. The address is in GIT, the certificate in the file ca.pem.
func gitServer(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		dir := ts.MkAbs(".") + "-git"
		ts.Check(os.MkdirAll(dir, 0o755))
		ts.Defer(func() { ts.Check(os.RemoveAll(dir)) })
		gittest.Configure(t, dir)
		src := ts.MkAbs(args[0])
		for _, command := range []string{"init -q " + src, "-C " + src + " add -A", "-C " + src + " commit -qm one", "-C " + src + " branch side", "clone -q --mirror " + src + " r.git"} {
			gittest.Git(t, dir, "", strings.Fields(command)...)
		}
		ts.Check(os.RemoveAll(src + "/.git"))
		backend := gittest.Handler(dir)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "u" || password != "p" {
				w.Header().Set("WWW-Authenticate", "Basic realm=git")
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			backend.ServeHTTP(w, r)
		}))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		ts.Defer(s.Close)
		block := &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}
		ts.Check(os.WriteFile(ts.MkAbs("ca.pem"), pem.EncodeToMemory(block), 0o644))
		ts.Setenv("GIT", s.Listener.Addr().String())
	}
}
