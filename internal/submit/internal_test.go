package submit

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/event"
)

// TestToldOnce has warnings come from the goroutines that read logs, too.
func TestToldOnce(t *testing.T) {
	t.Parallel()
	var got events
	f := &follower{submitted: &submitted{env: Env{Build: build.Env{Events: &got}}}}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 100 {
				f.once(fmt.Sprint(i))
			}
		})
	}
	all.Wait()
	if len(got.list) != 100 {
		t.Errorf("%d warnings, want 100", len(got.list))
	}
}

// TestForeignWords shows no escapes that others have put into what is told.
func TestForeignWords(t *testing.T) {
	t.Parallel()
	var got events
	f := &follower{submitted: &submitted{env: Env{Build: build.Env{Events: &got}}}}
	f.once("the pod waits: \x1b[2Ja\nb")
	if diff := cmp.Diff([]event.Event{event.Warning{Message: `the pod waits: \x1b[2Ja b`}}, got.list); diff != "" {
		t.Error(diff)
	}
}

// TestEndlessLine keeps no more of a line than is sensible, and goes on after it.
func TestEndlessLine(t *testing.T) {
	t.Parallel()
	in := bufio.NewReader(io.MultiReader(strings.NewReader("a\n"), strings.NewReader(strings.Repeat("x", 3*maxLine)), strings.NewReader("\nb")))
	for _, want := range []struct {
		length int
		cut    bool
		err    error
	}{{2, false, nil}, {maxLine, true, nil}, {1, false, io.EOF}} {
		line, cut, err := readLine(in)
		if len(line) != want.length || cut != want.cut || err != want.err {
			t.Errorf("%d bytes, cut: %v, %v, want %v", len(line), cut, err, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, good := range map[string]bool{
		"app": true, "app-1.x": true, strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false, "job/app": false, "App": false, "-app": false, "a b": false, "..": false,
	} {
		if err := checkName("--attach", name); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSecretIsLate waits for the Secret of a Job, which is made after it, and not for another's.
func TestSecretIsLate(t *testing.T) {
	t.Parallel()
	for name, waits := range map[string]bool{"mine": true, "other": false} {
		f := &follower{since: map[string]time.Time{}, submitted: &submitted{
			name: "mine", env: Env{Cluster: &cluster.Client{}, Build: build.Env{Events: event.Discard{}, Now: func() time.Time { return time.Unix(1, 0) }}},
		}}
		err := f.troubles(t.Context(), &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
			Name: Container, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: `secret "` + name + `" not found`}},
		}}}})
		if (err == nil) != waits {
			t.Errorf("%s: %v", name, err)
		}
	}
}
