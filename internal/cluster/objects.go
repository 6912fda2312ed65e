package cluster

import (
	"context"
	"fmt"
	"io"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// CreateJob makes a Job and returns it as the API server has it.
func (c *Client) CreateJob(ctx context.Context, j *batchv1.Job) (*batchv1.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out := &batchv1.Job{}
	err := c.batch.Post().Namespace(c.Namespace).Resource("jobs").Body(j).Do(ctx).Into(out)
	return out, c.explain(ctx, fmt.Sprintf("create the Job %s in namespace %s", j.Name, c.Namespace), err)
}

// Job looks a Job up.
func (c *Client) Job(ctx context.Context, name string) (*batchv1.Job, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out := &batchv1.Job{}
	err := c.batch.Get().Namespace(c.Namespace).Resource("jobs").Name(name).Do(ctx).Into(out)
	return out, c.explain(ctx, fmt.Sprintf("look up the Job %s in namespace %s", name, c.Namespace), err)
}

// DeleteJob has the Job of a name and UID deleted once its pods are gone; it does not wait for that. A Job that is gone is no
// error, and neither is that another has its name by now, which is left alone.
func (c *Client) DeleteJob(ctx context.Context, name string, uid types.UID) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	foreground := metav1.DeletePropagationForeground
	err := c.batch.Delete().Namespace(c.Namespace).Resource("jobs").Name(name).
		Body(&metav1.DeleteOptions{PropagationPolicy: &foreground, Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error()
	if IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return c.explain(ctx, fmt.Sprintf("delete the Job %s in namespace %s", name, c.Namespace), err)
}

// CreateSecret makes a Secret.
func (c *Client) CreateSecret(ctx context.Context, s *corev1.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.core.Post().Namespace(c.Namespace).Resource("secrets").Body(s).Do(ctx).Error()
	return c.explain(ctx, fmt.Sprintf("create the Secret %s in namespace %s", s.Name, c.Namespace), err)
}

// DeleteSecret deletes a Secret. One that is gone is no error.
func (c *Client) DeleteSecret(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.core.Delete().Namespace(c.Namespace).Resource("secrets").Name(name).Body(&metav1.DeleteOptions{}).Do(ctx).Error()
	if IsNotFound(err) {
		return nil
	}
	return c.explain(ctx, fmt.Sprintf("delete the Secret %s in namespace %s", name, c.Namespace), err)
}

// Pods lists the pods with labels.
func (c *Client) Pods(ctx context.Context, labels string) ([]corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out := &corev1.PodList{}
	err := c.core.Get().Namespace(c.Namespace).Resource("pods").VersionedParams(&metav1.ListOptions{LabelSelector: labels}, c.codec).Do(ctx).Into(out)
	return out.Items, c.explain(ctx, "list the pods in namespace "+c.Namespace, err)
}

// Events lists what the cluster has noted about the object of a UID.
func (c *Client) Events(ctx context.Context, uid string) ([]corev1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	out := &corev1.EventList{}
	o := &metav1.ListOptions{FieldSelector: "involvedObject.uid=" + uid}
	err := c.core.Get().Namespace(c.Namespace).Resource("events").VersionedParams(o, c.codec).Do(ctx).Into(out)
	return out.Items, c.explain(ctx, "list the events in namespace "+c.Namespace, err)
}

// Logs reads the log of a container, each line after its time. It begins with the second of since, if that is set, and with
// follow goes on until the container ends. The caller closes it.
func (c *Client) Logs(ctx context.Context, pod, container string, o LogOptions) (io.ReadCloser, error) {
	query := &corev1.PodLogOptions{Container: container, Timestamps: true, Follow: o.Follow}
	if !o.Since.IsZero() {
		query.SinceTime = &metav1.Time{Time: o.Since.Truncate(time.Second)}
	}
	out, err := c.core.Get().Namespace(c.Namespace).Resource("pods").Name(pod).SubResource("log").VersionedParams(query, c.codec).Stream(ctx)
	return out, c.explain(ctx, "read the log of pod "+pod, err)
}

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Since  time.Time
	Follow bool
}

// WatchPods calls changed after each change of a pod with labels, with the pod as it is then, or was last, until ctx or the
// connection ends, or the API server ends the watch, as it does every few minutes.
func (c *Client) WatchPods(ctx context.Context, labels string, changed func(*corev1.Pod)) error {
	o := &metav1.ListOptions{LabelSelector: labels, Watch: true}
	w, err := c.core.Get().Namespace(c.Namespace).Resource("pods").VersionedParams(o, c.codec).Watch(ctx)
	if err != nil {
		return c.explain(ctx, "watch the pods in namespace "+c.Namespace, err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		if p, is := e.Object.(*corev1.Pod); is {
			changed(p)
		}
	}
	return nil
}
