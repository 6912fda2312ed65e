package plan_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"hako/internal/diag"
	"hako/internal/dockerfile"
	"hako/internal/plan"
)

// FuzzBuild plans arbitrary Dockerfiles: every failure is one for the user, every graph is sound and prints,
// and the same text gives the same graph.
func FuzzBuild(f *testing.F) {
	files, err := filepath.Glob("testdata/plan/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(ar.Files[0].Data)
	}
	images := readImages(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := dockerfile.Parse("Dockerfile", text)
		if err != nil {
			mustBeForUsers(t, err)
			return
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		opts := plan.Options{BuildArgs: map[string]string{"A": "1", "http_proxy": "p"}}
		g, err := plan.Build(ctx, file, opts, images)
		if err != nil {
			mustBeForUsers(t, err)
			return
		}
		checkGraph(t, g)
		again, err := plan.Build(ctx, file, opts, images)
		if err != nil {
			t.Fatalf("second time: %v", err)
		}
		if g.String() != again.String() {
			t.Error("the same file gave two plans")
		}
	})
}

func mustBeForUsers(t *testing.T, err error) {
	t.Helper()
	var e *diag.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T is no diag.Error: %v", err, err)
	}
	_ = diag.Format(err) // must not panic
}
