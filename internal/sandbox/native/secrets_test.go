package native_test

import (
	"os"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sandboxtest"
)

func TestSecretsNeverTouchADisk(t *testing.T) {
	t.Parallel()
	for name, rung := range map[string]native.Rung{"direct": native.Direct, "own map": native.OwnMap} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			sandboxtest.Secrets(t, dir, func(t *testing.T) sandbox.Engine {
				e, err := native.New(t.Context(), native.Options{Dir: dir, Rungs: []native.Rung{rung}})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := e.Ready(t.Context()); err != nil {
					if os.Getenv("HAKO_CI") != "" {
						t.Fatal(err)
					}
					t.Skip("needs a machine that allows it: ", err)
				}
				return e
			})
		})
	}
}
