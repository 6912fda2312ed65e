// Package kubernetes holds the tests that run hako's images in pods, on a real cluster of one node whose API server enforces the
// Pod Security Standards. test/kubernetes/run brings such a cluster up and runs them.
//
// They need root, docker-registry, mmdebstrap, busybox-static, git and kubectl, helm for the chart, and
//
//	HAKO_TEST_KUBECONFIG  the cluster's administrator
//	HAKO_TEST_BRIDGE      the address of this machine that pods reach; the node has to pull from 127.0.0.1 by plain HTTP
//
// Without the first they skip. Pods need neither the outside network nor the cluster's DNS.
package kubernetes
