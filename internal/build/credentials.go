package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"hako/internal/web"
)

// credentials finds the login for a host in the file that NETRC names, or else in ~/.netrc. The file is read each time:
// downloads are few.
func credentials(getenv func(string) string) func(context.Context, *url.URL) (string, error) {
	return func(_ context.Context, u *url.URL) (string, error) {
		path := getenv("NETRC")
		if home := getenv("HOME"); path == "" && home != "" {
			path = filepath.Join(home, ".netrc")
		}
		if path == "" {
			return "", nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("read credentials: %w", err)
		}
		return web.FindLogin(string(text), u.Hostname()).Authorization(), nil
	}
}
