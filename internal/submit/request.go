// Package submit runs one build as a Kubernetes Job: it sends the context to a registry, makes the Job, shows what happens in
// its pod as if it happened here, and brings the result's digest and the exit code back. Placing, limiting and repeating is left
// to the cluster: a pod that was disturbed is made again by the Job controller, and followed on.
package submit

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/output"
)

// Request is one build as a Job.
type Request struct {
	// Build is the build as it would be here. Of it count: the context, which is sent unless PassContext says that the pod gets
	// it by itself; what is said of registries, for that and for credentials; and of the outputs the files that tell of the
	// result, which are written here.
	Build       build.Request
	PassContext bool
	// StreamContext says to send the context straight to the pod, through its standard input.
	StreamContext bool
	// Contexts are further contexts of this machine, by name, which are sent to a registry.
	Contexts []build.KeyValue
	// ContextRepository is where a context is sent; empty means the repository of the first destination.
	ContextRepository string
	// Args are the pod's, but for the context and for what this package needs itself. Where Parts finds several platforms, they
	// say nothing of platforms, annotations and signatures: that comes from Build.
	Args []string
	// Files are seen in the pod below FilesDir. Env are variables there. Both are kept in a Secret.
	Files []File
	Env   []build.KeyValue
	// CredentialsFor are repositories and hosts that the pod gets this user's credentials for.
	CredentialsFor []string
	// Cached says that a second pod goes on where a first one was disturbed, for messages.
	Cached bool
	Job    Job
	// Detach says to return when there is a Job.
	Detach bool
}

// File is a small file for the pod.
type File struct {
	// Name has no slash.
	Name string
	Data []byte
}

// FilesDir is where a pod sees Request.Files.
const FilesDir = "/hako/files"

// Job says how the Job is made. The zero value is valid but for Image.
type Job struct {
	// Name is the Job's; empty means a new one from Title, which may be any text.
	Name, Title string
	// Image is the executor's.
	Image string
	// ServiceAccount is the pod's, whose token it gets; with none it gets no token. RegistrySecret is a Secret of the type
	// kubernetes.io/dockerconfigjson to take credentials from, in place of this user's.
	ServiceAccount, RegistrySecret string
	NodeSelector                   map[string]string
	Tolerations                    []corev1.Toleration
	// CPU, Memory and Storage are limits as Kubernetes writes them, and requests at the same time; empty means defaults.
	CPU, Memory, Storage string
	// Template is a Pod or PodTemplate as YAML or JSON, merged onto the pod.
	Template []byte
	// Timeout bounds the whole Job, waiting included; 0 is no bound. TTL is how long it is kept when it has ended; negative
	// means for ever.
	Timeout, TTL time.Duration
	// Labels are set on the Job and its pods.
	Labels map[string]string
}

// Env is the world of a submitted build.
type Env struct {
	Cluster *cluster.Client
	// Build is the world of what is done here; its Events get what happens in the pod, too.
	Build build.Env
	// Contexts, if not nil, are the contexts that were sent already, and get those that are sent: they are deleted with it.
	Contexts *Contexts
	// Patience is how long a Job is asked for while the cluster does not answer; 0 means half a minute. A Job that is there is
	// followed for ever.
	Patience time.Duration
}

// Result is what became of a build.
type Result struct {
	// Job is its name. Of a detached build nothing else is known.
	Job string
	// Made tells of the image; its Top is zero if there is none.
	Made output.Described
}

// FailedError is a build that failed in its pod.
type FailedError struct {
	// Code is the exit code, at least 1.
	Code int
	err  error
}

// Error is what the build said.
func (e *FailedError) Error() string { return e.err.Error() }

// Unwrap returns it.
func (e *FailedError) Unwrap() error { return e.err }

// ExitCode is the pod's.
func (e *FailedError) ExitCode() int { return e.Code }

// Validate refuses what cannot be. Build does the same.
func (r *Request) Validate() error {
	if r.Job.Image == "" {
		return &diag.Error{
			What: "it is not said which image the pod runs",
			Hint: "Give --executor-image, or set HAKO_EXECUTOR_IMAGE to the executor image of this version in your registry.",
		}
	}
	if _, err := resources(&r.Job); err != nil {
		return err
	}
	if r.Job.Timeout < 0 {
		return &diag.Error{What: fmt.Sprintf("--timeout %s is less than no time", r.Job.Timeout), Hint: "Give more than 0, or leave it out for no bound."}
	}
	switch {
	case !r.StreamContext:
	case r.PassContext:
		return &diag.Error{What: "--context-stdin: the pod gets the context " + r.Build.Context + " by itself", Hint: "Leave the flag out."}
	case r.Detach:
		return &diag.Error{
			What: "--context-stdin: with --detach nobody is there to send the context to the pod",
			Hint: "Leave one of the two out; without --context-stdin the context is sent to a registry.",
		}
	case len(r.Contexts) > 0:
		return &diag.Error{
			What: "--context-stdin: standard input has room for one context, and --build-context " + r.Contexts[0].Key + " is another of this machine",
			Hint: "Leave the flag out, so that all are sent to a registry, or put the files into one directory.",
		}
	}
	return nil
}
