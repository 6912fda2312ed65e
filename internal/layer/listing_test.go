package layer_test

import (
	"errors"
	"io"
	"testing"

	"hako/internal/layer"
)

func TestImagesWithoutFilesHaveAccountsAtHandAndOpenForTheRest(t *testing.T) {
	t.Parallel()
	changes := list{dir("etc"), reg("etc/group", ""), reg("etc/passwd", "root"), reg("etc/shadow", "secret"), dir("usr"), reg("usr/passwd", "no")}
	w, err := layer.Write(t.Context(), changes, io.Discard, layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	closed := errors.New("the blob is gone")
	late := w.Image.Late(func() (*layer.Image, error) { return nil, closed })
	for path, want := range map[string]string{"etc/passwd": "root", "etc/group": ""} {
		got, err := io.ReadAll(late.Content(late.Index.Find(path)))
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for _, path := range []string{"etc/shadow", "usr/passwd"} {
		if _, err := io.ReadAll(late.Content(late.Index.Find(path))); !errors.Is(err, closed) {
			t.Errorf("%s: %v, want %v", path, err, closed)
		}
	}
	if _, err := io.ReadAll(w.Image.Content(w.Image.Index.Find("etc/shadow"))); err == nil {
		t.Error("files that were not kept are read")
	}
}
