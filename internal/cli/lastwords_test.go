package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hako/internal/diag"
	"hako/internal/ui"
)

// Why a build failed ends up in a pod's status, but for what steps have printed; a file that is not there is not made.
func TestLastWords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	say := func(err error) {
		c := &command{env: Env{LastWords: path}}
		c.lastWords(ui.Failure{Prefix: "error building image: ", Err: err})
	}
	failed := &diag.Error{
		What: "RUN make", Cause: errors.New("command exited with code 3"), Hint: "Mend it.", Output: []string{"Unspeakable"},
		Span: diag.Span{File: "Dockerfile", Start: 3, End: 3, Source: []string{"RUN make"}},
	}
	say(failed)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file was made")
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("sha256:1", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{failed, "error building image: Dockerfile:3: RUN make: command exited with code 3\nMend it."},
		{errors.New(strings.Repeat("é", 3000)), "error building image: " + strings.Repeat("é", 2035) + "…"},
	} {
		say(test.err)
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != test.want {
			t.Errorf("%d bytes: %s, want %s", len(got), got, test.want)
		}
	}
}

// A failing build tells it, whatever the failure is.
func TestLastWordsOfAProgram(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code := Main(t.Context(), Env{Cwd: t.TempDir(), Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Now: time.Now, LastWords: path}, []string{"executor", "--no-such-flag"})
	got, err := os.ReadFile(path)
	if err != nil || code != 1 || !strings.HasPrefix(string(got), "Error: unknown flag: --no-such-flag") {
		t.Errorf("exit code %d, %q, %v", code, got, err)
	}
}
