package registry_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// asPlainUser calls f with the rights to files that a plain user has, on this goroutine only.
func asPlainUser(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(nobody); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0) //nolint:errcheck // it reports none
	f()
}

// openConfigDir has a config.json that nobody may read, in a directory that everybody may list.
func openConfigDir(t *testing.T, json string) string {
	t.Helper()
	dir := configDir(t, json)
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "config.json"), 0); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestUnreadableConfigIsNamed(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Users: map[string]string{"u": "p"}}
	host := reg.Start(t)
	closed := configDir(t, "{}") // as root's home is to others: nothing in it can be seen
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) }) // so that it can be removed
	dir := openConfigDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"u","password":"p"}}}`, host))
	told := &journal{}
	o := quick()
	o.DockerConfigDirs, o.Events = []string{closed, dir}, told
	var r *registry.Repository
	asPlainUser(t, func() { r = open(t, o, host+"/a", registry.Push) })
	path := filepath.Join(dir, "config.json")
	wantError(t, r.CheckPush(t.Context()), host,
		"check that HOST/a can be pushed to: POST http://HOST/v2/a/blobs/uploads/: 401 Unauthorized: UNAUTHORIZED: authentication required",
		"No credentials for HOST were found, and this user may not read "+path+": change its mode or owner, or run the build as its owner.")
	warned := "registry credentials in %s are not used"
	if got := told.text.String(); !strings.Contains(got, fmt.Sprintf(warned, path)) || strings.Contains(got, fmt.Sprintf(warned, filepath.Join(closed, "config.json"))) {
		t.Errorf("told:\n%s", got)
	}
}
