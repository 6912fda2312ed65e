package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/submit"
)

// submitError is a failure of a build in a cluster, after the command line was understood.
type submitError struct{ error }

func (e submitError) Unwrap() error { return e.error }

// submitFlags are those that "hako submit" has besides those of a build.
func submitFlags() []flag {
	return slices.Concat(clusterFlags(), podFlags(), manyFlags("16"))
}

// clusterFlags are those of one call of "hako submit".
func clusterFlags() []flag {
	text := func(name, def, help string) flag {
		return flag{name: name, kind: stringKind, def: def, help: help, forks: "H", status: used}
	}
	return []flag{
		text("namespace", "", "namespace of the Job; the kubeconfig's if not given"),
		text("kubeconfig", "", "kubeconfig; KUBECONFIG, ~/.kube/config or the pod's own account if not given"),
		text("kube-context", "", "one of the kubeconfig's contexts"),
		{name: "detach", kind: boolKind, def: "false", help: "print the Job's name and leave it running", forks: "H", status: used},
		text("attach", "", "follow a Job that is there already, in place of making one"),
	}
}

// podFlags are about the Job and the pod of one build: each build of a file may have its own.
func podFlags() []flag {
	text := func(name, def, help string) flag {
		return flag{name: name, kind: stringKind, def: def, help: help, forks: "H", status: used}
	}
	return []flag{
		text("executor-image", "", "image that the pod runs; HAKO_EXECUTOR_IMAGE if not given"),
		text("job-name", "", "name of the Job; a new one if not given"),
		text("service-account", "", "service account of the pod, which gets its token"),
		text("registry-secret", "", "Secret of the type kubernetes.io/dockerconfigjson that the pod takes credentials from, in place of yours"),
		{name: "credentials-for", kind: multiKind, help: "repository or registry that the pod gets your credentials for, besides those that flags and FROM name", forks: "H", status: used},
		{name: "node-selector", kind: kvKind, help: "LABEL=VALUE that the node must have", forks: "H", status: used},
		{name: "toleration", kind: multiKind, help: "taint that the pod tolerates: KEY[=VALUE][:EFFECT]", forks: "H", status: used},
		text("cpu", "", "processors, limit and request, as 2 or 500m; a request of 250m if not given"),
		text("memory", "", "memory, limit and request, as 4Gi; a limit of 2Gi if not given"),
		text("storage", "", "disk, limit and request, as 20Gi; a limit of 20Gi if not given"),
		text("pod-template", "", "file with a Pod or PodTemplate that is merged onto the generated one"),
		{name: "timeout", kind: durationKind, def: "0s", help: "time for the whole Job, waiting included; 0 is no bound", forks: "H", status: used},
		{name: "ttl-after-finished", kind: durationKind, def: "1h0m0s", help: "how long the Job is kept when it has ended; negative is for ever", forks: "H", status: used},
		text("context-repo", "", "repository that a local context is sent to; that of the first destination if not given"),
		{name: "context-stdin", kind: boolKind, def: "false", help: "send a local context straight to the pod, through its standard input, and not to a registry", forks: "H", status: used},
	}
}

// newSubmitValues are the flags of a submitted build.
func newSubmitValues() *values {
	vs := newValues()
	for _, f := range submitFlags() {
		vs.byName[f.name] = &value{flag: f}
	}
	return vs
}

func (c *command) submitCommand() *cobra.Command {
	vs := newSubmitValues()
	cmd := &cobra.Command{
		Use: "submit [PATH | NAME…]", Short: "Build an image as a Job of a Kubernetes cluster, or many that a file names",
		Args: func(cmd *cobra.Command, args []string) error {
			if isMany(vs) {
				return nil // names of builds
			}
			return c.operands(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			c.vs = vs
			return c.submit(cmd.Context(), args)
		},
	}
	cmd.Flags().SortFlags = false
	vs.registerSome(cmd.Flags(), submitFlags())
	vs.register(cmd.Flags())
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		text := fmt.Sprintf("Usage:\n  %s\n\nFlags:\n", cmd.UseLine())
		for _, f := range submitFlags() {
			text += helpLine(f)
		}
		_, err := io.WriteString(cmd.OutOrStdout(), text+"\nAnd those of hako build; those that need this machine are refused. See docs/submit.md.\n")
		return err
	})
	return cmd
}

// submit runs a build in a cluster, or follows one.
func (c *command) submit(ctx context.Context, operands []string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	vs := c.vs
	if isMany(vs) {
		return c.submitMany(ctx, operands)
	}
	if err := onlyMany(vs); err != nil {
		return usageError{err}
	}
	attach := vs.str("attach")
	if attach != "" && len(operands) > 0 {
		return usageError{errors.New("--attach follows a Job that has its context already")}
	}
	if attach != "" {
		if err := attachable(vs); err != nil {
			return usageError{err}
		}
	}
	if attach != "" && len(vs.list("destination"))+len(vs.list("tag")) == 0 {
		if err := vs.byName["no-push"].Set("true"); err != nil {
			return err
		}
	}
	req, err := c.submitRequest(ctx, vs, operands)
	if err == nil && attach == "" {
		err = req.Validate()
	}
	if err != nil {
		return usageError{err}
	}
	c.warn()
	to, err := c.connect(vs)
	if err != nil {
		return submitError{err}
	}
	defer to.Close()
	env := submit.Env{Cluster: to, Build: c.buildEnv(c.ui)}
	var made *submit.Result
	if attach != "" {
		made, err = submit.Attach(ctx, env, attach, req)
	} else {
		made, err = submit.Build(ctx, env, req)
	}
	if err != nil {
		return submitError{err}
	}
	if req.Detach {
		_, err = fmt.Fprintln(c.env.Stdout, made.Job)
	}
	return err
}

// attachable refuses flags that say how a Job is made, and what it makes, where it is there already.
func attachable(vs *values) error {
	known := fates()
	for name := range strings.FieldsSeq("destination tag push push-by-digest output platform custom-platform no-push verbosity insecure insecure-pull insecure-registry " +
		"skip-tls-verify skip-tls-verify-pull skip-tls-verify-registry registry-mirror registry-map registry-certificate registry-client-cert " +
		"skip-default-registry-fallback push-retry image-download-retry credential-helpers attach namespace kubeconfig kube-context") {
		known[name] = here
	}
	for _, f := range slices.Concat(submitFlags(), flags()) {
		if f.alias == "" && (f.status == used) && known[f.name] != here && !vs.byName[f.name].isDefault() {
			return &diag.Error{What: "--" + f.name + " has no effect with --attach: the Job is there already", Hint: "Leave it out; what counts is which files to write, and the cluster."}
		}
	}
	return nil
}

// connect finds the cluster that flags name.
func (c *command) connect(vs *values) (*cluster.Client, error) {
	return cluster.Connect(cluster.Options{
		Kubeconfig: vs.str("kubeconfig"), Context: vs.str("kube-context"), Namespace: vs.str("namespace"), Getenv: c.getenv,
		UserAgent: "hako/" + c.env.Version, Warn: func(text string) { c.ui.Emit(event.Warning{Message: text}) },
	})
}

// submitRequest turns the flags into a build in a cluster.
func (c *command) submitRequest(ctx context.Context, vs *values, operands []string) (submit.Request, error) {
	local, err := c.request(vs, operands)
	if err != nil {
		return submit.Request{}, err
	}
	req := submit.Request{
		Build: local, PassContext: isRemote(local.Context), StreamContext: vs.bool("context-stdin"), ContextRepository: vs.str("context-repo"), Detach: vs.bool("detach"),
		Cached: local.Cache.Enabled && !local.NoCache,
		Job: submit.Job{
			Name: vs.str("job-name"), Image: firstSet(vs.str("executor-image"), c.getenv("HAKO_EXECUTOR_IMAGE")),
			ServiceAccount: vs.str("service-account"), RegistrySecret: vs.str("registry-secret"),
			CPU: vs.str("cpu"), Memory: vs.str("memory"), Storage: vs.str("storage"),
			Timeout: vs.duration("timeout"), TTL: vs.duration("ttl-after-finished"), NodeSelector: map[string]string{},
		},
	}
	for _, kv := range pairs(vs.list("node-selector"), "=") {
		req.Job.NodeSelector[kv.Key] = kv.Value
	}
	for _, t := range vs.list("toleration") {
		req.Job.Tolerations = append(req.Job.Tolerations, toleration(t))
	}
	if name := vs.str("pod-template"); name != "" {
		if req.Job.Template, err = os.ReadFile(c.absolute(name)); err != nil {
			return req, &diag.Error{What: "--pod-template", Cause: err, Hint: "Name a file with a Pod as YAML."}
		}
	}
	if vs.str("attach") != "" {
		return req, nil
	}
	p := &parcel{c: c, vs: vs, req: &req}
	return req, p.pack(ctx)
}

// toleration reads KEY[=VALUE][:EFFECT].
func toleration(text string) corev1.Toleration {
	taint, effect, _ := strings.Cut(text, ":")
	key, value, equal := strings.Cut(taint, "=")
	t := corev1.Toleration{Key: key, Value: value, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffect(effect)}
	if equal {
		t.Operator = corev1.TolerationOpEqual
	}
	return t
}

// isRemote says whether a pod can get a context by itself.
func isRemote(place string) bool {
	if place == "" || place == "-" {
		return false
	}
	if scheme, _, ok := strings.Cut(place, "://"); ok {
		return scheme != "dir" && scheme != "tar" && scheme != "file"
	}
	if _, err := os.Stat(place); err == nil || filepath.IsAbs(place) {
		return false
	}
	return strings.HasPrefix(place, "git@") || strings.HasPrefix(place, "github.com/")
}
