package reproducible

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/sandbox/choice"
)

// jobVariable holds the job of a process that is to build.
const jobVariable = "HAKO_TEST_JOB"

// job is one build in a process of its own.
type job struct {
	Context, WorkDir, Base string
	// Out is the directory for the image, as an OCI layout.
	Out     string
	Sandbox string
	// Now is added to the clock of the builder.
	Now time.Duration
	// Hostname and Umask are set before the build; empty and negative leave them alone.
	Hostname string
	Umask    int
	Jobs     int
	Rewrite  bool
}

func TestMain(m *testing.M) {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	if text := os.Getenv(jobVariable); text != "" {
		os.Exit(buildMain(text))
	}
	os.Exit(m.Run())
}

// buildMain runs the job and prints the digest.
func buildMain(text string) int {
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		err = j.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, diag.Format(err))
		return 1
	}
	return 0
}

func (j *job) run() error {
	if j.Hostname != "" {
		if err := syscall.Sethostname([]byte(j.Hostname)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
	}
	if j.Umask >= 0 {
		syscall.Umask(j.Umask)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return err
	}
	env := build.Env{
		Now: func() time.Time { return time.Now().Add(j.Now) }, Getenv: os.Getenv, Cwd: cwd, Stdout: os.Stdout, Events: events{},
	}
	r, err := build.Build(context.Background(), env, j.request())
	if err != nil {
		return err
	}
	if r.Digest == "" {
		return errors.New("there is no digest")
	}
	fmt.Println(r.Digest)
	return nil
}

// request has much of everything that a map could put into disorder.
func (j *job) request() build.Request {
	req := build.Request{
		Context: j.Context, WorkDir: j.WorkDir, Sandbox: j.Sandbox, Jobs: j.Jobs, RewriteTimestamp: j.Rewrite,
		BuildArgs: map[string]string{"BASE": j.Base, "SOURCE_DATE_EPOCH": fmt.Sprint(epoch)},
		Outputs:   build.Outputs{NoPush: true, OCILayoutPath: j.Out},
		Registry:  build.Registry{InsecureRegistries: []string{strings.Split(j.Base, "/")[0]}},
	}
	for i := range 20 {
		req.BuildArgs[fmt.Sprintf("ARG%d", i)] = fmt.Sprint(i)
		req.Labels = append(req.Labels, build.KeyValue{Key: fmt.Sprintf("label%d", i), Value: fmt.Sprint(i)})
	}
	return req
}

// events shows what a failure needs.
type events struct{}

// Emit is event.Sink's.
func (events) Emit(e event.Event) {
	switch e := e.(type) {
	case event.StepOutput:
		fmt.Fprintf(os.Stderr, "%s: %s\n", e.Step, e.Line)
	case event.Warning:
		fmt.Fprintln(os.Stderr, "warning:", e.Message)
	case event.Info:
		fmt.Fprintln(os.Stderr, e.Message)
	}
}
