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
	if !ok || !filepath.IsAbs(name) {
		return "", errNoSource
	}
	return filepath.Dir(name), nil
}

// cases are tests by name.
type cases map[string]func(t *testing.T, b *bed)

// Traits are what an engine cannot help being different in.
type Traits struct {
	// NoNodes says that a step which makes a device node is one that the engine does not support.
	NoNodes bool
	// ForeignDevices says that the devices in /dev belong to a user whom the step has no number for.
	ForeignDevices bool
}

// Run runs the whole suite against an engine that open makes, and closes it.
func Run(t *testing.T, open func(t *testing.T) sandbox.Engine) {
	t.Helper()
	RunWith(t, Traits{}, open)
}

// RunWith is Run for an engine with these traits.
func RunWith(t *testing.T, traits Traits, open func(t *testing.T) sandbox.Engine) {
	t.Helper()
	b := newBed(t, open)
	b.traits = traits
	for _, group := range []cases{
		exitCases(), startCases(), workingDirectoryCases(), outputCases(), fileCases(), specialFileCases(), removalCases(), identityCases(),
		surroundingCases(), deviceCases(), isolationCases(), chainCases(), cancelCases(), timeCases(),
		bindCases(), tmpfsCases(), targetCases(), badTargetCases(), cacheCases(), sharedCacheCases(), keptCacheCases(), socketCases(), networkCases(), memoryCases(),
	} {
		for name, f := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				f(t, b)
			})
		}
	}
}

// newBed builds what the steps stand on and opens the engine.
func newBed(t *testing.T, open func(t *testing.T) sandbox.Engine) *bed {
	t.Helper()
	applet, err := Applet(t.TempDir())
	if err != nil {
		t.Fatalf("build the program that steps run: %v", err)
	}
	b := &bed{engine: open(t), applet: applet}
	b.base = b.stack(t, base(applet))
	t.Cleanup(func() {
		if err := b.engine.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	return b
}

// stack makes a stack of layers, bottom first, none of which came from a step.
func (b *bed) stack(t *testing.T, layers ...list) *rootfs.Stack {
	t.Helper()
	var s *rootfs.Stack
	for _, l := range layers {
		src, err := source(t.Context(), l)
		if err != nil {
			t.Fatalf("write a layer: %v", err)
		}
		s = s.Push(src)
	}
	return s
}
