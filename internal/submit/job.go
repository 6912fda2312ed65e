package submit

import (
	"crypto/rand"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"hako/internal/diag"
)

// The names within a pod.
const (
	// Container is the name of the container that builds.
	Container = "executor"
	workDir   = "/tmp"
	configDir = "/hako/docker"
	// resultFile gets what the build made: the kubelet hands its text on, with the pod's status.
	resultFile = "/dev/termination-log"
	configKey  = corev1.DockerConfigJsonKey
)

// Annotations and labels of a Job.
const (
	contextAnnotation = "hako.dev/context"
	// platformAnnotation is the platform of a Job that is one of several, and buildLabel the name that these have in common.
	platformAnnotation = "hako.dev/platform"
	buildLabel         = "hako.dev/build"
	// RunLabel is the label that the Jobs of one run of many builds have in common.
	RunLabel     = "hako.dev/run"
	labelName    = "app.kubernetes.io/name"
	labelManaged = "app.kubernetes.io/managed-by"
)

// The defaults. A limit is always set: a pod without one takes others of its node with it.
const (
	defaultCPURequest     = "250m"
	defaultMemory         = "2Gi"
	defaultMemoryRequest  = "256Mi"
	defaultStorage        = "20Gi"
	defaultStorageRequest = "1Gi"
)

// user is whom the pod runs as: any but root will do.
const user = 1000

// retries is how often a pod that was ended by a signal is made again. Disruptions that the cluster knows as such do not count.
const retries = 2

// The exit codes of a pod that was deleted, or whose process was killed: 128 plus SIGKILL and SIGTERM.
const (
	exitKilled     = 137
	exitTerminated = 143
)

// newJob makes the Job.
func newJob(r *Request, name string, contexts *sent) (*batchv1.Job, error) {
	pod, err := podTemplate(r, name, contexts)
	if err != nil {
		return nil, err
	}
	labels := labelsOf(r)
	backoff := int32(retries)
	j := &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: batchv1.JobSpec{
			BackoffLimit: &backoff, PodFailurePolicy: failurePolicy(r), Template: *pod,
		},
	}
	j.Annotations = map[string]string{}
	if len(contexts.artifacts) > 0 {
		j.Annotations[contextAnnotation] = contexts.annotation()
	}
	if r.Job.Labels[buildLabel] != "" {
		j.Annotations[platformAnnotation] = r.Build.Platforms[0]
	}
	if r.Job.Timeout > 0 {
		seconds := max(1, int64(r.Job.Timeout.Seconds()))
		j.Spec.ActiveDeadlineSeconds = &seconds
	}
	if r.Job.TTL >= 0 {
		seconds := int32(min(r.Job.TTL.Seconds(), 1<<31-1))
		j.Spec.TTLSecondsAfterFinished = &seconds
	}
	return j, nil
}

// failurePolicy makes a pod again that was disturbed, and none whose build failed.
func failurePolicy(r *Request) *batchv1.PodFailurePolicy {
	container, again := Container, []int32{0, exitKilled, exitTerminated}
	if r.StreamContext {
		again = []int32{0, exitAgain, exitKilled, exitTerminated}
	}
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{
			Action:          batchv1.PodFailurePolicyActionIgnore,
			OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}},
		},
		{
			Action: batchv1.PodFailurePolicyActionFailJob,
			OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				ContainerName: &container, Operator: batchv1.PodFailurePolicyOnExitCodesOpNotIn, Values: again,
			},
		},
	}}
}

func labelsOf(r *Request) map[string]string {
	out := map[string]string{labelName: "hako-build", labelManaged: "hako"}
	maps.Copy(out, r.Job.Labels)
	return out
}

// podTemplate makes the pod. It satisfies the Pod Security Standard "restricted", unless the user's template changes that.
func podTemplate(r *Request, name string, contexts *sent) (*corev1.PodTemplateSpec, error) {
	limits, err := resources(&r.Job)
	if err != nil {
		return nil, err
	}
	storage := limits.Limits[corev1.ResourceEphemeralStorage]
	id, yes, no := int64(user), true, false
	c := corev1.Container{
		Name: Container, Image: r.Job.Image, Args: arguments(r, contexts), Stdin: r.StreamContext, StdinOnce: r.StreamContext,
		Resources: *limits,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts:             []corev1.VolumeMount{{Name: "work", MountPath: workDir}},
		TerminationMessagePath:   resultFile,
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		Env:                      []corev1.EnvVar{workDirSize()},
	}
	spec := corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no,
		NodeSelector: r.Job.NodeSelector, Tolerations: r.Job.Tolerations,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: &yes, RunAsUser: &id, RunAsGroup: &id, FSGroup: &id, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		Volumes: []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &storage}}}},
	}
	if r.Job.ServiceAccount != "" {
		spec.ServiceAccountName, spec.AutomountServiceAccountToken = r.Job.ServiceAccount, &yes
	}
	addSecrets(r, name, &c, &spec)
	spec.Containers = []corev1.Container{c}
	return placed(&corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labelsOf(r)}, Spec: spec}, r)
}

// workDirSize tells the build how much disk it may take, whatever the template makes of it: it fails with a sentence then, before
// the kubelet evicts the pod.
func workDirSize() corev1.EnvVar {
	return corev1.EnvVar{Name: "HAKO_WORK_DIR_SIZE", ValueFrom: &corev1.EnvVarSource{
		ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: Container, Resource: "limits.ephemeral-storage"},
	}}
}

// arguments are those of the program in the pod. Secrets are never among them.
func arguments(r *Request, contexts *sent) []string {
	out := []string{"--log-format=json", "--metadata-file=" + resultFile}
	if contexts.place != "" {
		out = append(out, "--context="+contexts.place)
	}
	return slices.Concat(out, contexts.args, r.Args)
}

// valuesIn are those that a Job's arguments give flags.
func valuesIn(j *batchv1.Job, flags ...string) []string {
	var out []string
	for _, c := range j.Spec.Template.Spec.Containers {
		for _, a := range c.Args {
			flag, value, _ := strings.Cut(a, "=")
			if c.Name == Container && slices.Contains(flags, flag) {
				out = append(out, value)
			}
		}
	}
	return out
}

// resources are the limits. What the user says is a request, too, so that the pod is not put where it has no place.
func resources(j *Job) (*corev1.ResourceRequirements, error) {
	out := &corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, l := range []struct {
		flag, given, limit, request string
		name                        corev1.ResourceName
	}{
		{"--cpu", j.CPU, "", defaultCPURequest, corev1.ResourceCPU},
		{"--memory", j.Memory, defaultMemory, defaultMemoryRequest, corev1.ResourceMemory},
		{"--storage", j.Storage, defaultStorage, defaultStorageRequest, corev1.ResourceEphemeralStorage},
	} {
		if l.given != "" {
			l.limit, l.request = l.given, l.given
		}
		for list, text := range map[*corev1.ResourceList]string{&out.Limits: l.limit, &out.Requests: l.request} {
			if text == "" {
				continue
			}
			q, err := quantity(l.flag, text)
			if err != nil {
				return nil, err
			}
			(*list)[l.name] = q
		}
	}
	return out, nil
}

// quantity reads what a flag says. Of memory and disk less than 1 MiB is somebody's "512m", which Kubernetes takes for half a byte.
func quantity(flag, text string) (resource.Quantity, error) {
	const example = "--cpu 2 --memory 4Gi --storage 20Gi."
	q, err := resource.ParseQuantity(text)
	switch {
	case err != nil:
		return q, &diag.Error{What: flag + " " + text + " is not a quantity", Hint: "Write it as Kubernetes does: " + example}
	case q.Sign() <= 0:
		return q, &diag.Error{What: flag + " " + text + " is nothing to build with", Hint: "Leave it out, or give more than 0: " + example}
	case flag != "--cpu" && q.CmpInt64(1<<20) < 0:
		return q, &diag.Error{What: flag + " " + text + " is less than 1Mi", Hint: "Write the unit as Kubernetes does, Mi or Gi: m is a thousandth, and no unit is bytes."}
	}
	return q, nil
}

// addSecrets shows the container what is in Secrets.
func addSecrets(r *Request, name string, c *corev1.Container, spec *corev1.PodSpec) {
	const readable = int32(0o444)
	add := func(volume, secret, dir string, items []corev1.KeyToPath) {
		mode := readable
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: secret, Items: items, DefaultMode: &mode},
		}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: volume, MountPath: dir, ReadOnly: true})
	}
	config := []corev1.KeyToPath{{Key: configKey, Path: "config.json"}}
	if r.Job.RegistrySecret != "" {
		add("registry", r.Job.RegistrySecret, configDir, config)
	} else if len(r.dockerConfig()) > 0 {
		add("registry", name, configDir, config)
	}
	if r.Job.RegistrySecret != "" || len(r.dockerConfig()) > 0 {
		c.Env = append(c.Env, corev1.EnvVar{Name: "DOCKER_CONFIG", Value: configDir})
	}
	var items []corev1.KeyToPath
	for _, f := range r.Files {
		if f.Name != configKey {
			items = append(items, corev1.KeyToPath{Key: f.Name, Path: f.Name})
		}
	}
	if len(items) > 0 {
		add("files", name, FilesDir, items)
	}
	for i, kv := range r.Env {
		c.Env = append(c.Env, corev1.EnvVar{Name: kv.Key, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: name}, Key: envKey(i),
		}}})
	}
}

// envKey is where the i-th variable is in the Secret.
func envKey(i int) string { return fmt.Sprintf("env-%d", i) }

// dockerConfig is the config.json among the files, if there is one.
func (r *Request) dockerConfig() []byte {
	for _, f := range r.Files {
		if f.Name == configKey {
			return f.Data
		}
	}
	return nil
}

// maxSecret is what a Secret may hold: Kubernetes' MaxSecretSize, 1 MiB.
const maxSecret = 1 << 20

// newSecret makes the Secret that goes with job, or none. It is deleted with the Job.
func newSecret(r *Request, job *batchv1.Job) (*corev1.Secret, error) {
	data, size := map[string][]byte{}, 0
	for _, f := range r.Files {
		data[f.Name] = f.Data
		size += len(f.Data)
	}
	for i, kv := range r.Env {
		data[envKey(i)] = []byte(kv.Value)
		size += len(kv.Value)
	}
	if len(data) == 0 {
		return nil, nil //nolint:nilnil // there is nothing to keep secret
	}
	if size > maxSecret {
		return nil, &diag.Error{
			What: fmt.Sprintf("secrets, Dockerfile and certificates have %d bytes, and a Secret of Kubernetes holds %d", size, maxSecret),
			Hint: "Put large files into the context, or into a volume that --pod-template adds.",
		}
	}
	yes := true
	kind := corev1.SecretTypeOpaque
	if len(r.dockerConfig()) > 0 {
		kind = corev1.SecretTypeDockerConfigJson
	}
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Name: job.Name, Labels: labelsOf(r), OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "batch/v1", Kind: "Job", Name: job.Name, UID: job.UID, Controller: &yes},
		}},
		Type: kind, Data: data, Immutable: &yes,
	}, nil
}

// checkName refuses what cannot be the name of a Job: it is a label of its pods, too.
func checkName(flag, name string) error {
	if len(validation.IsDNS1123Subdomain(name)) == 0 && len(name) <= validation.LabelValueMaxLength {
		return nil
	}
	return &diag.Error{
		What: flag + ": " + strconv.Quote(name) + " cannot be the name of a Job",
		Hint: fmt.Sprintf("Write it with at most %d lower-case letters, digits, \"-\" and \".\", with a letter or digit at both ends.", validation.LabelValueMaxLength),
	}
}

// nameOf is a new name for a Job: it says what is built, and nobody else has it.
func nameOf(r *Request) string {
	title := r.Job.Title
	if names := slices.Concat(r.Build.Outputs.Destinations, r.Build.Outputs.Repositories); title == "" && len(names) > 0 {
		title, _, _ = strings.Cut(path.Base(names[0]), "@")
		title, _, _ = strings.Cut(title, ":")
	}
	const longest = 40 // with what is added, pods' names stay below the 63 bytes of a host name
	plain := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			return c
		case c >= 'A' && c <= 'Z':
			return c + 'a' - 'A'
		}
		return '-'
	}, title)
	if plain = strings.Trim(plain[:min(len(plain), longest)], "-"); plain != "" {
		plain += "-"
	}
	const unique = 8
	return "hako-" + plain + strings.ToLower(rand.Text()[:unique])
}
