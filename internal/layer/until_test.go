package layer_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/tree"
)

// entries are changes without content.
type entries []tree.Entry

func (l entries) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	for _, e := range l {
		if err := fn(e, nil); err != nil {
			return err
		}
	}
	return nil
}

func TestUntil(t *testing.T) {
	t.Parallel()
	at := func(path string, sec, nsec int64) tree.Entry {
		return tree.Entry{Path: path, ModTime: time.Unix(sec, nsec)}
	}
	in := entries{at("after", 101, 0), at("before", 99, 0), at("same", 100, 0), at("same second", 100, 999), {Path: "none"}}
	var noted []string
	var got []int64
	changes := layer.Until(in, time.Unix(100, 0), func(e *tree.Entry) { noted = append(noted, e.Path) })
	err := changes.Each(t.Context(), func(e tree.Entry, _ io.Reader) error {
		got = append(got, e.ModTime.Unix())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{100, 99, 100, 100, time.Time{}.Unix()}, got); diff != "" {
		t.Errorf("times: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"after"}, noted); diff != "" {
		t.Errorf("told of: -want +got:\n%s", diff)
	}
}

// TestUntilBefore1970 finds that no time, which is written as 1970, can be too late, too.
func TestUntilBefore1970(t *testing.T) {
	t.Parallel()
	changes := layer.Until(entries{{Path: "none"}}, time.Unix(-5, 0), nil)
	err := changes.Each(t.Context(), func(e tree.Entry, _ io.Reader) error {
		if e.ModTime.Unix() != -5 {
			t.Errorf("time is %v", e.ModTime)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
