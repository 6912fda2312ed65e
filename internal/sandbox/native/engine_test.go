package native_test

import (
	"os"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if native.IsChild(os.Args) {
		os.Exit(native.ChildMain())
	}
	os.Exit(m.Run())
}

func TestEngine(t *testing.T) {
	t.Parallel()
	sandboxtest.Run(t, func(t *testing.T) sandbox.Engine {
		e, err := native.New(t.Context(), native.Options{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		return e
	})
}
