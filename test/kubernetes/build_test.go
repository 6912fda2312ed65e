package kubernetes

import (
	"fmt"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/lab"
)

// digest is that of an image in a registry, by its reference for pods.
func digest(t *testing.T, r *lab.Registry, ref string) string {
	t.Helper()
	return must[v1.Hash](t)(must[v1.Image](t)(r.Image(t.Context(), ref)).Digest()).String()
}

// testSmall builds in a pod that may do nothing, and on this machine: the images are the same, bit for bit.
func testSmall(t *testing.T, f *fixture) {
	const dockerfile = "FROM %s\nRUN id -u > /uid && touch /own && chown 12:34 /own\nCOPY Dockerfile /srv/\nCMD [\"sh\"]\n"
	ns := f.namespace(t, "restricted")
	files := map[string]string{"Dockerfile": fmt.Sprintf(dockerfile, must[string](t)(f.busybox()))}
	f.configMap(t, ns, "context", files)
	ref := f.inPod(f.registry.Addr) + "/small:pod"
	same := []string{"--insecure", "--insecure-pull", "--source-date-epoch=1000000000", "--rewrite-timestamp"}
	e := succeed(t, f.runPod(t, ns, pod{
		Name: "build", Args: append(same, "--context=dir:///workspace", "--destination="+ref, "--digest-file=/dev/termination-log"),
		Volumes: map[string]map[string]any{"/workspace": {"configMap": map[string]any{"name": "context"}}},
	}))
	if got := digest(t, f.registry, ref); e.Message != got {
		t.Errorf("termination message %q, want %s", e.Message, got)
	}
	here := f.inPod(f.registry.Addr) + "/small:here"
	must[string](t)(lab.Must(t.Context(), append([]string{f.hako, "build", f.writeFiles(t, files), "-t", here}, same...)...))
	if pod, machine := digest(t, f.registry, ref), digest(t, f.registry, here); pod != machine {
		t.Errorf("in a pod %s, here %s", pod, machine)
	}
}
