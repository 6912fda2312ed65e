// Package manifests holds the tests of the manifests below deploy and examples that need no cluster: the chart and the
// kustomizations are rendered by Helm's and kustomize's own libraries. What runs is tested in test/kubernetes.
package manifests
