package privilege

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"hako/test/lab"
)

// debianDockerfile is the main job: packages with maintainer scripts, users, owners, capabilities, devices, links.
const debianDockerfile = `FROM %s
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y git sudo postgresql libcap2-bin attr
RUN useradd -m -s /bin/bash app && useradd -r -u 4242 -d /srv/data svc && echo 'app ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/app && chmod 0440 /etc/sudoers.d/app
COPY --chown=app:app src /home/app/src
RUN install -d -o svc -g svc -m 2750 /srv/data && echo data > /srv/data/file && ln /srv/data/file /srv/data/second && ln /srv/data/file /srv/third && echo note > /srv/noted && chown -R 123:456 /opt && mkdir -p /opt/a/b && chown 789:1011 /opt/a/b && ln -s /srv/data /opt/link && chown -h svc /opt/link
RUN cp /usr/bin/env /usr/local/bin/bind && setcap cap_net_bind_service+ep /usr/local/bin/bind && cp /usr/bin/env /usr/local/bin/su2 && setcap cap_setuid,cap_setgid+ep /usr/local/bin/su2 && getcap /usr/local/bin/* > /srv/caps
RUN mknod /srv/fifo p && chown app /srv/fifo && mknod -m 660 /srv/null c 1 3
RUN rm /etc/issue.net && rm -r /usr/share/common-licenses && mkdir /usr/share/common-licenses && touch /usr/share/common-licenses/NONE && chmod 4711 /usr/bin/attr && chown 12:34 /etc/debian_version
RUN setfattr -n user.note -v remember /srv/noted && getfattr -d /srv/noted
USER app
RUN mkdir /home/app/work
WORKDIR /home/app/work
RUN whoami > ../who && id > ../id && sudo -n id > ../root-id && sudo -n -u svc cat /srv/data/file > ../svc && ! cat /etc/shadow 2>/dev/null
RUN cd .. && git init -q repo && cd repo && cp ../src/main.txt . && git add . && git config user.name app && git config user.email app@example.com && GIT_AUTHOR_DATE=@1700000000Z GIT_COMMITTER_DATE=@1700000000Z git commit -q -m first && git rev-parse HEAD > ../head
RUN psql --version && test "$(stat -c %%U:%%G /var/lib/postgresql)" = postgres:postgres && sudo -n -u postgres pg_lsclusters > ../clusters
CMD ["bash"]
`

func debianContext(t *testing.T, f *fixture) string {
	t.Helper()
	return f.writeContext(t, map[string]string{
		"Dockerfile":      fmt.Sprintf(debianDockerfile, must[string](t)(f.debian())),
		"src/main.txt":    "main\n",
		"src/bin/tool.sh": "#!/bin/bash\necho tool\n",
	})
}

// testDebian builds the Debian image at the restricted levels and as root in a default container; each time the tree
// must be Docker's, and Docker must be able to run it.
func testDebian(t *testing.T, f *fixture) {
	if testing.Short() {
		t.Skip("takes minutes; leave out -short")
	}
	dir := debianContext(t, f)
	ref := f.registry.Addr + "/debian-app:docker"
	r := must[lab.Result](t)(lab.DockerBuild(t.Context(), dir, ref))
	if r.ExitCode != 0 {
		t.Fatalf("docker build: exit code %d\n%s", r.ExitCode, tail(r.Output))
	}
	t.Logf("docker built in %s", r.Wall)
	want := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
	for _, l := range append(restrictedLevels(), defaultLevel()) {
		t.Run(l.name, func(t *testing.T) {
			ref := f.registry.Addr + "/debian-app:" + l.name
			out := f.mustBuild(t, l, job{context: dir, destination: ref, args: lab.ProxyArgs(os.Getenv)})
			t.Logf("built in %s; peak anonymous memory: builder %d MiB, its sandbox %d MiB", out.Wall, out.peak.builder>>20, out.peak.others>>20)
			got := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
			if most := int64(120<<20 + 4096*len(got)); out.peak.others > most || out.peak.builder > 100<<20 {
				t.Errorf("anonymous memory reached %+v bytes, want at most 100 MiB, and %d of the sandbox", out.peak, most)
			}
			checkUserXattr(t, got)
			diffs := lab.Compare(want, got, append(smallExceptions(), debianExceptions()...))
			if len(got) < 5000 {
				t.Errorf("the image has only %d files", len(got))
			}
			for _, d := range diffs {
				t.Error(d)
			}
			checkRuns(t, ref)
		})
	}
}

// checkUserXattr looks for the attribute that Docker's layers lose, and takes it away for the comparison.
func checkUserXattr(t *testing.T, got lab.Tree) {
	t.Helper()
	const p = "/srv/noted"
	n := got[p]
	if n.Xattrs["user.note"] != "remember" {
		t.Errorf("%s has attributes %q, want user.note", p, n.Xattrs)
	}
	n.Xattrs = nil
	got[p] = n
}

// checkRuns pulls the image into Docker and uses what was installed.
func checkRuns(t *testing.T, ref string) {
	t.Helper()
	must[string](t)(lab.Must(t.Context(), "docker", "pull", "-q", ref))
	t.Cleanup(func() {
		if _, err := lab.Must(context.WithoutCancel(t.Context()), "docker", "rmi", "-f", ref); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ user, command, want string }{
		{"root", "sudo -u app id -un", "app"},
		{"app", "sudo -n id -u", "0"},
		{"app", "id -Gn", "app"},
		{"app", "psql --version | cut -c1-17", "psql (PostgreSQL)"},
		{"app", "git -C /home/app/repo log --format=%s", "first"},
		{"root", "getcap /usr/local/bin/bind /usr/local/bin/su2", "/usr/local/bin/bind cap_net_bind_service=ep\n/usr/local/bin/su2 cap_setgid,cap_setuid=ep"},
		{"root", "stat -c '%U:%g %a %F' /srv/fifo /srv/null /opt/a/b; stat -c %u:%G:%a /srv/data", "app:0 644 fifo\nroot:0 660 character special file\nUNKNOWN:1011 755 directory\n4242:svc:2750"},
		{"root", "stat -c %h /srv/third", "3"},
		{"root", "ls /usr/share/common-licenses; test ! -e /etc/issue.net && echo gone", "NONE\ngone"},
		{"svc", "/usr/local/bin/su2 id -u", "4242"},
		{"root", "pg_ctlcluster 15 main start && sudo -u postgres psql -Atc 'select 6*7' && pg_ctlcluster 15 main stop", "42"},
	} {
		out, err := lab.Must(t.Context(), "docker", "run", "--rm", "--user", c.user, "--network", "none", ref, "bash", "-c", c.command)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := strings.TrimSpace(out); got != c.want {
			t.Errorf("%s, as %s: %q, want %q", c.command, c.user, got, c.want)
		}
	}
}

// debianExceptions differ between any two builds of the Dockerfile, by whatever builder, or have the host name of the
// steps, which is the machine's with Docker and BuildKit's own with BuildKit.
func debianExceptions() []lab.Exception {
	return []lab.Exception{
		{Pattern: "/var/log/**", What: "content", Why: "logs have times"},
		{Pattern: "/var/cache/**", What: "all", Why: "caches"},
		{Pattern: "/var/lib/apt/lists/**", What: "all", Why: "package lists of the moment"},
		{Pattern: "/etc/machine-id", What: "content", Why: "random"},
		{Pattern: "/etc/ssl/private/ssl-cert-snakeoil.key", What: "content", Why: "random key"},
		{Pattern: "/etc/ssl/certs/ssl-cert-snakeoil.pem", What: "content", Why: "random key"},
		{Pattern: "/etc/ssl/certs/????????.0", What: "all", Why: "named by a hash of the host name"},
		{Pattern: "/var/lib/postgresql/15/main/**", What: "content", Why: "a new cluster has a random id and times"},
		{Pattern: "/etc/shadow", What: "content", Why: "day of the last password change"},
		{Pattern: "/etc/shadow-", What: "content", Why: "day of the last password change"},
		{Pattern: "/var/lib/ucf/**", What: "content", Why: "order of registration"},
		{Pattern: "/etc/mailname", What: "content", Why: "host name"},
		{Pattern: "/etc/exim4/update-exim4.conf.conf", What: "content", Why: "host name"},
		{Pattern: "/var/lib/exim4/config.autogenerated", What: "content", Why: "host name"},
		{Pattern: "/home/app/repo/.git/index", What: "content", Why: "has inode numbers and times"},
	}
}
