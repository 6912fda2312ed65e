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
	sandboxtest.Run(t, func(t *testing.T) sandbox.Engine {
		e, err := sentry.New(t.Context(), sentry.Options{
			Crashed: func(err *sentry.CrashError) { t.Errorf("the first try of a step was lost: %v", err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}
