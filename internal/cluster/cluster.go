// Package cluster is the part of Kubernetes' API that builds need: Jobs, their pods, Secrets and logs. It finds the cluster as
// kubectl does: by a kubeconfig, or from within a pod by the service account's token. Its client knows two API groups and no
// others, so that little is linked.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"hako/internal/diag"
)

// Options says which cluster is meant.
type Options struct {
	// Kubeconfig is a file; empty means those of the variable KUBECONFIG, then ~/.kube/config, then the pod's own account.
	Kubeconfig string
	// Context is one of a kubeconfig's contexts, Namespace a namespace; empty means the kubeconfig's choice.
	Context, Namespace string
	// Getenv looks up KUBECONFIG, HOME and what tells a pod where its API server is. It must be set.
	Getenv func(string) string
	// UserAgent is sent to the API server.
	UserAgent string
	// Warn gets the warnings that the API server sends with its answers; nil drops them.
	Warn func(text string)
}

// Client talks to one namespace of a cluster. It may be used from many goroutines.
type Client struct {
	core, batch *rest.RESTClient
	http        *http.Client
	config      *rest.Config
	codec       runtime.ParameterCodec
	// Namespace is where everything is made and looked for; Server is the API server's address, for messages.
	Namespace, Server string
}

// requestTimeout bounds a request that is not a stream.
const requestTimeout = 30 * time.Second

// Connect finds the cluster, and asks it nothing yet. What a user can mend is a *diag.Error.
func Connect(o Options) (*Client, error) {
	config, namespace, err := find(o)
	if err != nil {
		return nil, err
	}
	config.UserAgent = o.UserAgent
	config.WarningHandler = warnings{o.Warn}
	// Builds make few requests, and hundreds of builds may share one client: the API server's own fairness does for them.
	config.QPS = -1
	c := &Client{Namespace: namespace, Server: config.Host, config: config}
	if c.http, err = rest.HTTPClientFor(config); err != nil {
		return nil, &diag.Error{What: "read the kubeconfig", Cause: err, Hint: "Correct the certificates and credentials in it."}
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), batchv1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	c.codec = runtime.NewParameterCodec(scheme)
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	for _, g := range []struct {
		client **rest.RESTClient
		path   string
		of     schema.GroupVersion
	}{{&c.core, "/api", corev1.SchemeGroupVersion}, {&c.batch, "/apis", batchv1.SchemeGroupVersion}} {
		own := rest.CopyConfig(config)
		own.APIPath, own.GroupVersion, own.NegotiatedSerializer = g.path, &g.of, codecs
		if *g.client, err = rest.RESTClientForConfigAndClient(own, c.http); err != nil {
			return nil, fmt.Errorf("make a client for %s: %w", config.Host, err)
		}
	}
	return c, nil
}

// Close gives back idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// find reads the kubeconfigs, or what the pod has. The rules' own look-ups in the environment are replaced by o.Getenv.
func find(o Options) (*rest.Config, string, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: o.Kubeconfig, WarnIfAllMissing: false}
	files := filepath.SplitList(o.Getenv(clientcmd.RecommendedConfigPathEnvVar))
	if len(files) == 0 && o.Getenv("HOME") != "" {
		files = []string{filepath.Join(o.Getenv("HOME"), ".kube", "config")}
	}
	rules.Precedence = files
	if o.Kubeconfig == "" && o.Context == "" && !anyExists(files) {
		return findInPod(o, files)
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.Context}
	overrides.Context.Namespace = o.Namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	switch {
	case clientcmd.IsEmptyConfig(err):
		return nil, "", noCluster(files, nil)
	case err != nil && o.Kubeconfig != "" && errors.Is(err, os.ErrNotExist):
		return nil, "", &diag.Error{What: "read the kubeconfig " + o.Kubeconfig, Cause: err, Hint: "Name a file that exists with --kubeconfig."}
	case err != nil:
		return nil, "", &diag.Error{What: "read the kubeconfig", Cause: err, Hint: "Check it with: kubectl config view --minify."}
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, "", &diag.Error{What: "read the kubeconfig's namespace", Cause: err, Hint: "Give one with --namespace."}
	}
	return config, namespace, nil
}

func anyExists(files []string) bool {
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			return true
		}
	}
	return false
}

// serviceAccount is where a pod finds its own account: Kubernetes' documentation, "Accessing the Kubernetes API from a Pod".
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

func findInPod(o Options, files []string) (*rest.Config, string, error) {
	if o.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return nil, "", noCluster(files, nil)
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, "", noCluster(files, err)
	}
	if o.Namespace != "" {
		return config, o.Namespace, nil
	}
	text, err := os.ReadFile(filepath.Join(serviceAccount, "namespace"))
	if err != nil || strings.TrimSpace(string(text)) == "" {
		return config, metav1.NamespaceDefault, nil
	}
	return config, strings.TrimSpace(string(text)), nil
}

func noCluster(files []string, cause error) error {
	what := "no cluster is known: there is no kubeconfig"
	if len(files) > 0 {
		what += " (" + strings.Join(files, ", ") + ")"
	}
	return &diag.Error{
		What: what + ", and this is no pod with a service account", Cause: cause,
		Hint: "Name a kubeconfig with --kubeconfig or the variable KUBECONFIG.",
	}
}

// warnings are passed on.
type warnings struct{ to func(string) }

// HandleWarningHeader passes on what people should know; 299 is the only code in use, RFC 7234 5.5.7.
func (w warnings) HandleWarningHeader(code int, _, text string) {
	const persistent = 299
	if w.to != nil && code == persistent && text != "" {
		w.to(text)
	}
}

// explain makes a sentence of a refusal or a broken connection. What was attempted is as "create the Job x".
func (c *Client) explain(ctx context.Context, what string, err error) error {
	var known apierrors.APIStatus
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return context.Cause(ctx)
	case apierrors.IsUnauthorized(err):
		return &diag.Error{What: what, Cause: err, Hint: "Log in to the cluster again: the kubeconfig's credentials are not accepted."}
	case apierrors.IsForbidden(err):
		return &diag.Error{What: what, Cause: err, Hint: c.forbiddenHint(err)}
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces "):
		return &diag.Error{What: what, Cause: err, Hint: "Create it with: kubectl create namespace " + c.Namespace + "; or name another with --namespace."}
	case errors.As(err, new(*noStreamError)):
		return c.explainStream(what, err)
	case errors.As(err, &known):
		return &diag.Error{What: what, Cause: err}
	}
	return &diag.Error{
		What: what, Cause: &ConnectionError{err},
		Hint: "See whether the cluster at " + c.Server + " can be reached: kubectl version.",
	}
}

// forbiddenHint tells what to do about a refusal: the API server says "forbidden" for missing rights, quotas and policies alike.
func (c *Client) forbiddenHint(err error) string {
	switch text := err.Error(); {
	case strings.Contains(text, "exceeded quota"):
		return "Delete finished Jobs in namespace " + c.Namespace + " or have its ResourceQuota raised."
	case strings.Contains(text, "pods/attach"):
		return "Have the rule for pods/attach of docs/submit.md bound to this user in namespace " + c.Namespace + ", or leave out --context-stdin."
	case strings.Contains(text, "User ") && strings.Contains(text, " cannot "):
		return "Have the Role of docs/submit.md bound to this user in namespace " + c.Namespace + "."
	}
	return "Change what the cluster's policy refuses with --pod-template, or use another namespace."
}

// ConnectionError is a request that got no answer: the API server may be restarted, or the connection to it broken.
type ConnectionError struct{ error }

func (e *ConnectionError) Unwrap() error { return e.error }

// IsTemporary says whether the same request may succeed later: there was no answer, or the API server was too busy for one.
func IsTemporary(err error) bool {
	var lost *ConnectionError
	return errors.As(err, &lost) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsInternalError(err) || apierrors.IsServiceUnavailable(err)
}

// IsUnsent says that a request never left: there is no connection to the API server.
func IsUnsent(err error) bool {
	var broken *net.OpError
	return errors.As(err, &broken) && broken.Op == "dial"
}

// IsNotFound says that something does not exist.
func IsNotFound(err error) bool { return apierrors.IsNotFound(err) }

// IsUnauthorized says that the API server does not accept the credentials.
func IsUnauthorized(err error) bool { return apierrors.IsUnauthorized(err) }

// IsForbidden says that this user may not do something.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }

// IsExists says that something of that name exists already.
func IsExists(err error) bool { return apierrors.IsAlreadyExists(err) }
