package submit

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/image"
)

// placed merges the user's template onto a pod, and sends the pod of a build for one platform to nodes that run its programs,
// unless the user says something of the nodes' architecture.
func placed(t *corev1.PodTemplateSpec, r *Request) (*corev1.PodTemplateSpec, error) {
	out, err := merged(t, r)
	if err != nil {
		return nil, err
	}
	platforms, err := image.ParsePlatforms(r.Build.Platforms)
	if err != nil {
		return nil, err
	}
	if len(platforms) != 1 || namesArchitecture(&out.Spec) {
		return out, nil
	}
	labels := nodesFor(platforms[0])
	if labels == nil {
		return out, nil
	}
	// Before the merge, so that a template can take away what is not wanted.
	maps.Copy(labels, t.Spec.NodeSelector)
	t.Spec.NodeSelector = labels
	return merged(t, r)
}

func merged(t *corev1.PodTemplateSpec, r *Request) (*corev1.PodTemplateSpec, error) {
	if len(r.Job.Template) == 0 {
		return t, nil
	}
	return mergeTemplate(t, r.Job.Template)
}

// nodesFor are the labels of nodes where hako exists and programs for p run as they are, as far as their processor has p's
// variant. Of other architectures there is no hako, so that it is left to the user where they are emulated.
func nodesFor(p ocispec.Platform) map[string]string {
	of := map[string]string{"amd64": "amd64", "386": "amd64", "arm64": "arm64", "arm": "arm64"}
	arch, ok := of[p.Architecture]
	if !ok {
		return nil
	}
	return map[string]string{corev1.LabelArchStable: arch, corev1.LabelOSStable: p.OS}
}

// namesArchitecture says whether a pod asks for nodes of an architecture, or for one node, already.
func namesArchitecture(s *corev1.PodSpec) bool {
	if _, ok := s.NodeSelector[corev1.LabelArchStable]; ok || s.NodeName != "" {
		return true
	}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil || s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	return slices.ContainsFunc(s.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms, func(t corev1.NodeSelectorTerm) bool {
		return slices.ContainsFunc(t.MatchExpressions, func(e corev1.NodeSelectorRequirement) bool { return e.Key == corev1.LabelArchStable })
	})
}

// nodeless says what a pod waits for that the scheduler finds no node for, and what to do.
func nodeless(s *corev1.PodSpec, message string) (what, hint string) {
	message, _, _ = strings.Cut(message, ". ") // what follows is about preemption
	labels := map[string]string{}
	maps.Copy(labels, s.NodeSelector)
	if labels[corev1.LabelOSStable] == "linux" && len(labels) > 1 {
		delete(labels, corev1.LabelOSStable) // any node has it that could be meant
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		words = append(words, name+"="+labels[name])
	}
	list := "the label " + strings.Join(words, " and ")
	if len(words) > 1 {
		list = "the labels " + strings.Join(words, " and ")
	}
	hint = "Ask for less with --cpu, --memory and --storage, or change --node-selector and --toleration."
	none, tainted := unmatched(message)
	switch {
	case len(words) > 0 && none:
		or := ""
		if tainted {
			or = "tolerate the taint of one with --toleration, "
		}
		if arch := labels[corev1.LabelArchStable]; arch != "" {
			hint = fmt.Sprintf("Add a node with %s=%s, %sor build on others with --node-selector %[1]s=ARCH: RUN needs a node of the platform, COPY does not.", corev1.LabelArchStable, arch, or)
		}
		if tainted {
			return "no node without a taint has " + list + " (" + message + ")", hint
		}
		return "no node has " + list + " (" + message + ")", hint
	case len(words) > 0:
		return "no node with " + list + " takes it: " + message, hint
	}
	return "no node has room for it: " + message, hint
}

// unmatched says whether a message of the scheduler tells that it is for the labels that none of the nodes will do, but for
// those, if any, whose taints are looked at first:
// "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector".
func unmatched(message string) (none, tainted bool) {
	count, reasons, _ := strings.Cut(strings.TrimPrefix(message, "0/"), " nodes are available: ")
	all, err := strconv.Atoi(count)
	if err != nil {
		return false, false
	}
	for _, m := range regexp.MustCompile(`(\d+) node\(s\) (didn't match Pod's node affinity/selector|had untolerated taint)`).FindAllStringSubmatch(reasons, -1) {
		n, _ := strconv.Atoi(m[1]) // they are digits; more than fit are 0, and so too few
		all -= n
		if strings.HasPrefix(m[2], "had") {
			tainted = true
		} else {
			none = true
		}
	}
	return none && all == 0, tainted
}
