package privilege

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"path"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"hako/test/lab"
)

// mountsDockerfile has every kind of mount, and a step without network.
const mountsDockerfile = `FROM %[1]s AS tools
RUN echo from the stage > /tool && chown 7:8 /tool
FROM %[1]s
RUN --mount=source=files,target=/mnt/files --mount=source=files,target=/mnt/scratch,rw --mount=from=tools,source=/tool,target=/mnt/tool \
    --mount=type=cache,target=/mnt/cache,uid=1234,mode=0700,sharing=locked --mount=type=tmpfs,target=/mnt/tmp,size=1m \
    --mount=type=secret,id=token,uid=1234 --mount=type=secret,id=token,env=TOKEN --mount=type=ssh,required \
    set -e; cat /mnt/files/data /mnt/tool > /out; stat -c '%%a %%u:%%g' /mnt/tool /mnt/cache /mnt/tmp /run/secrets/token >> /out; \
    [ "$(cat /run/secrets/token)" = "$TOKEN" ]; echo ${#TOKEN} >> /out; [ -S $SSH_AUTH_SOCK ]; \
    ! touch /mnt/files/x 2>/dev/null; touch /mnt/scratch/x; echo kept > /mnt/cache/x; touch /mnt/tmp/x
RUN --mount=type=cache,target=/mnt/cache,uid=1234,mode=0700 cat /mnt/cache/x >> /out; [ ! -e /run/secrets ]; [ -z "$TOKEN" ]
RUN --network=none tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' >> /out
`

// testMounts builds an image with every kind of mount at every level, and wants the same tree each time.
func testMounts(t *testing.T, f *fixture) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block := must[*pem.Block](t)(ssh.MarshalPrivateKey(key, "privilege"))
	dir := f.writeContext(t, map[string]string{
		"Dockerfile": fmt.Sprintf(mountsDockerfile, must[string](t)(f.busybox())), ".dockerignore": "token\nkey\n",
		"files/data": "data\n", "token": "a secret token", "key": string(pem.EncodeToMemory(block)),
	})
	var want lab.Tree
	for i, l := range allLevels() {
		t.Run(l.name, func(t *testing.T) {
			at := "/workspace"
			if l.docker == nil {
				at = dir
			}
			ref := f.registry.Addr + "/mounts:" + l.name
			out := f.mustBuild(t, l, job{
				context: dir, destination: ref,
				args: []string{"--secret", "id=token,src=" + path.Join(at, "token"), "--ssh", "default=" + path.Join(at, "key")},
			})
			if strings.Contains(out.Output, "a secret token") {
				t.Error("the secret is in the log")
			}
			got := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
			if i == 0 {
				want = got
			}
			for _, d := range lab.Compare(want, got, nil) {
				t.Error(d)
			}
			for p := range got {
				if strings.HasPrefix(p, "/mnt") || strings.HasPrefix(p, "/run/") {
					t.Errorf("%s stays in the image", p)
				}
			}
		})
	}
}
