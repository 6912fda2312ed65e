package cli

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hako/test/lab"
)

// TestExamplesAreUnderstood gives the command lines of the examples to the parser of flags, and makes requests of them.
func TestExamplesAreUnderstood(t *testing.T) {
	t.Parallel()
	for _, file := range []string{
		"docker/run.sh", "docker/stdin.sh", "kubernetes/pod.yaml", "kubernetes/tekton-task.yaml",
		"kubernetes/argo-workflow.yaml", "ci/gitlab-ci.yml", "ci/github-actions.yml", "ci/github-arc.yml", "ci/cloudbuild.yaml", "ci/Jenkinsfile",
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			steps, err := lab.ReadExample(file)
			if err != nil {
				t.Fatal(err)
			}
			understood := 0
			for _, s := range steps {
				getenv := func(name string) string {
					switch name {
					case "HAKO_IMAGE":
						return "" // the default counts
					case "GITHUB_SERVER_URL":
						return "https://github.com"
					}
					return "example"
				}
				args, err := s.ExecutorArgs(getenv)
				if err != nil {
					t.Fatal(err)
				}
				submit, err := s.SubmitArgs(getenv)
				if err != nil {
					t.Fatal(err)
				}
				if len(args) > 0 {
					understood++
					checkArgs(t, args)
				}
				if len(submit) > 0 {
					understood++
					checkSubmit(t, submit)
				}
			}
			if understood == 0 {
				t.Error("no step starts executor")
			}
		})
	}
}

// checkSubmit parses the arguments of hako submit.
func checkSubmit(t *testing.T, args []string) {
	t.Helper()
	flags := pflag.NewFlagSet("submit", pflag.ContinueOnError)
	vs := newSubmitValues()
	vs.registerSome(flags, submitFlags())
	vs.register(flags)
	if err := flags.Parse(args); err != nil {
		t.Errorf("hako submit %q: %v", args, err)
	}
}

// checkArgs parses the arguments of executor, with a Tekton Task's parameters replaced.
func checkArgs(t *testing.T, args []string) {
	t.Helper()
	var plain []string
	for _, a := range args {
		if a != "$(params.EXTRA_ARGS[*])" {
			plain = append(plain, strings.NewReplacer("$(", "", ")", "", "$_", "", "$", "").Replace(a))
		}
	}
	c := &command{
		env:  Env{Cwd: "/workspace", Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Now: time.Now},
		args: append([]string{"executor"}, plain...), vars: map[string]string{}, vs: newValues(), kaniko: true,
	}
	root := c.root()
	root.SetArgs(plain)
	root.RunE = func(_ *cobra.Command, operands []string) error {
		_, err := c.request(c.vs, operands)
		return err
	}
	if err := root.ExecuteContext(context.Background()); err != nil {
		t.Errorf("executor %q: %v", plain, err)
	}
}
