package sandboxtest

import (
	"errors"
	"path/filepath"
	"runtime"
	"testing"

	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

var errNoSource = errors.New("the source of this package is not where it was compiled")

// packageDir is where this package's source is.
func packageDir() (string, error) {
	_, name, _, ok := runtime.Caller(0)
	if !ok {
		return "", errNoSource
	}
	return filepath.Dir(name), nil
}

// Run runs the whole suite against engines that open makes. It closes them.
func Run(t *testing.T, open func(t *testing.T) sandbox.Engine) {
	t.Helper()
	applet, err := buildApplet(t.TempDir())
	if err != nil {
		t.Fatalf("build the program that steps run: %v", err)
	}
	src, err := source(t.Context(), base(applet))
	if err != nil {
		t.Fatalf("write the base layer: %v", err)
	}
	b := &bed{engine: open(t), base: rootfs.NewStack(src)}
	t.Cleanup(func() {
		if err := b.engine.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	for _, group := range []map[string]func(*testing.T, *bed){exits()} {
		for name, f := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, b)
			})
		}
	}
}

func exits() map[string]func(*testing.T, *bed) {
	return map[string]func(*testing.T, *bed){
		"smoke": func(t *testing.T, b *bed) {
			r := b.ok(t, "echo", "hi", ";", "write", "/x", "1")
			f := regular("x", "1", 0o644)
			f.ModTime = f.ModTime.Add(0)
			t.Logf("%q %q %v", r.Out, r.Err, r.Changes)
		},
	}
}
