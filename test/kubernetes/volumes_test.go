package kubernetes

import (
	"fmt"
	"os"
	"testing"
)

// hostPath makes a claim for a directory of the node, as a hostPath volume: nobody changes its owner.
func (f *fixture) hostPath(t *testing.T, ns, claim, dir string) {
	t.Helper()
	f.volume(t, ns, claim, fmt.Sprintf("hostPath: {path: %s}", dir))
	f.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec: {accessModes: [ReadWriteMany], storageClassName: "", resources: {requests: {storage: 1Gi}}}
`, claim))
}

// localVolume makes an empty volume that belongs to root, for a claim that somebody else makes: the kubelet gives it to the
// pod's fsGroup.
func (f *fixture) localVolume(t *testing.T, ns, claim string) {
	t.Helper()
	dir := f.newDir(t)
	f.volume(t, ns, claim, fmt.Sprintf(`local: {path: %s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]}]}}`, dir))
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
}

// volume makes a volume that only the claim may have.
func (f *fixture) volume(t *testing.T, ns, claim, source string) {
	t.Helper()
	name := ns + "-" + claim
	f.apply(t, ns, fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolume
metadata: {name: %s}
spec:
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: %s, name: %s}
  %s
`, name, ns, claim, source))
	t.Cleanup(func() { f.mustKubectl(t, "", "delete", "persistentvolume", name, "--wait=false") })
}
