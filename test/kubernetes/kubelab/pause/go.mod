module hako/test/kubernetes/kubelab/pause
go 1.26
