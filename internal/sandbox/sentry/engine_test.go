package sentry_test

import (
	"os"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/sandbox/sandboxtest"
	"hako/internal/sandbox/sentry"
)

func TestMain(m *testing.M) {
	if sentry.IsChild(os.Args) {
		os.Exit(sentry.ChildMain())
	}
	os.Exit(m.Run())
}

func TestEngine(t *testing.T) {
	t.Parallel()
	if _, err := sentry.Probe(t.Context(), sentry.Options{}); err != nil && os.Getenv("HAKO_CI") == "" {
		t.Skip("needs a machine that allows ptrace and seccomp: ", err)
	}
	for name, options := range map[string]sentry.Options{
		"memory": {},
		"file":   {UpperFile: upperFile(t)},
		"ptrace": {Platform: "ptrace"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, func(t *testing.T) sandbox.Engine {
				options.Crashed = func(err *sentry.CrashError) { t.Errorf("the first try of a step was lost: %v", err) }
				e, err := sentry.New(t.Context(), options)
				if err != nil {
					t.Fatal(err)
				}
				return e
			})
		})
	}
}

// upperFile makes files as a work directory does: on a disk, and linked nowhere.
func upperFile(t *testing.T) func() (*os.File, error) {
	dir := t.TempDir()
	return func() (*os.File, error) {
		f, err := os.CreateTemp(dir, "uppers")
		if err != nil {
			return nil, err
		}
		return f, os.Remove(f.Name())
	}
}

func TestSecretsNeverTouchADisk(t *testing.T) {
	t.Parallel()
	if _, err := sentry.Probe(t.Context(), sentry.Options{}); err != nil && os.Getenv("HAKO_CI") == "" {
		t.Skip("needs a machine that allows ptrace and seccomp: ", err)
	}
	dir := t.TempDir()
	sandboxtest.Secrets(t, dir, func(t *testing.T) sandbox.Engine {
		e, err := sentry.New(t.Context(), sentry.Options{UpperFile: func() (*os.File, error) { return os.CreateTemp(dir, "uppers") }})
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}
