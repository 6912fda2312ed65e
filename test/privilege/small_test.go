package privilege

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/lab"
)

// smallDockerfile does in a second what breaks when privileges are missing.
const smallDockerfile = `FROM %s
RUN echo hello > /hello && echo app:x:1234:1234::/home/app:/bin/sh >> /etc/passwd && echo app:x:1234: >> /etc/group && mkdir -m 2755 /home/app && chown app:app /home/app && chown app /hello && ln /hello /srv/hello2 && ln -s ../hello /srv/hello3
RUN mknod /srv/fifo p && mknod /srv/null c 1 3 && chown 77:88 /srv/fifo && rm /etc/removed && rm -r /var/keep && mkdir /var/keep && echo new > /var/keep/three
RUN mkdir -p /d/e && chmod 2775 /d && chown 7:8 /d /d/e && chmod 1777 /d/e && cp /bin/busybox /d/su && chmod 4755 /d/su && chown -h 9:9 /srv/hello3
RUN umask 077; touch /root/private; chmod 0604 /etc/shadow; chown 3:3 /bin/capable; mv /bin/moved /srv/moved; sleep 1000 &
RUN cp -a /d /copy && mv /copy/su /copy/us && test ! -e /etc/removed && test -z "$(ls /proc | grep -x 99999)"
COPY --chown=app:app files /srv/files
COPY --chown=55 files/run.sh /usr/local/bin/
WORKDIR /srv/files/deep
USER app
RUN id -u > /home/app/uid && id -g > /home/app/gid && pwd > /home/app/pwd && ! touch /root/no 2>/dev/null && ! cat /etc/shadow.no 2>/dev/null && run.sh > /home/app/out
RUN ! chown 0 /home/app/uid 2>/dev/null && chmod 0640 /home/app/uid && echo more >> run.log
ENV GREETING=hello
EXPOSE 8080/tcp
LABEL org.example.kind=small
CMD ["run.sh"]
`

func smallContext(t *testing.T, f *fixture) string {
	t.Helper()
	return f.writeContext(t, map[string]string{
		"Dockerfile":         fmt.Sprintf(smallDockerfile, must[string](t)(f.busybox())),
		".dockerignore":      "**/*.secret\n",
		"files/run.sh":       "#!/bin/sh\necho ran\n",
		"files/data":         strings.Repeat("data\n", 1000),
		"files/x.secret":     "not to be copied\n",
		"files/deep/run.log": "log\n",
	})
}

// writeContext makes a context of files that everybody may read; *.sh can be executed.
func (f *fixture) writeContext(t *testing.T, content map[string]string) string {
	t.Helper()
	dir := f.newDir(t)
	for name, text := range content {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testSmall builds a small image at every level and wants Docker's tree and configuration each time.
func testSmall(t *testing.T, f *fixture) {
	dir := smallContext(t, f)
	ref := f.registry.Addr + "/small:docker"
	r := must[lab.Result](t)(lab.DockerBuild(t.Context(), dir, ref))
	if r.ExitCode != 0 {
		t.Fatalf("docker build: exit code %d\n%s", r.ExitCode, r.Output)
	}
	want := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
	wantConfig := f.config(t, ref)
	for _, l := range allLevels() {
		t.Run(l.name, func(t *testing.T) {
			ref := f.registry.Addr + "/small:" + l.name
			out := f.mustBuild(t, l, job{context: dir, destination: ref})
			t.Logf("built in %s", out.Wall)
			if !strings.Contains(out.Output, l.engine()) {
				t.Errorf("nowhere says %q:\n%s", l.engine(), tail(out.Output))
			}
			got := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
			for _, d := range lab.Compare(want, got, smallExceptions()) {
				t.Error(d)
			}
			if d := cmp.Diff(wantConfig, f.config(t, ref), cmpopts.EquateEmpty()); d != "" {
				t.Errorf("configuration (-docker +hako):\n%s", d)
			}
		})
	}
}

// smallExceptions are files that Docker's container set-up leaves in a layer and BuildKit, the judge, does not.
func smallExceptions() []lab.Exception {
	const dockerInit = "mount point that Docker's containers make"
	return []lab.Exception{
		{Pattern: "/etc/hosts", What: "all", Why: dockerInit},
		{Pattern: "/etc/hostname", What: "all", Why: dockerInit},
		{Pattern: "/etc/resolv.conf", What: "all", Why: dockerInit},
		{Pattern: "/etc/mtab", What: "all", Why: dockerInit},
		{Pattern: "/dev/**", What: "all", Why: dockerInit},
		{Pattern: "/.dockerenv", What: "all", Why: dockerInit},
	}
}

// runConfig is what running the image depends on.
type runConfig struct {
	OS, Architecture string
	Env              []string
	Cmd, Entrypoint  []string
	WorkingDir, User string
	Labels           map[string]string
	ExposedPorts     map[string]struct{}
}

func (f *fixture) config(t *testing.T, ref string) runConfig {
	t.Helper()
	img := must[v1.Image](t)(f.registry.Image(t.Context(), ref))
	cf := must[*v1.ConfigFile](t)(img.ConfigFile())
	c := cf.Config
	return runConfig{
		OS: cf.OS, Architecture: cf.Architecture, Env: c.Env, Cmd: c.Cmd, Entrypoint: c.Entrypoint,
		WorkingDir: c.WorkingDir, User: c.User, Labels: c.Labels, ExposedPorts: c.ExposedPorts,
	}
}
