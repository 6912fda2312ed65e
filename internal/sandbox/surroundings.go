package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// DefaultHostname is the host name of steps that do not ask for another; BuildKit: executor/oci/hosts.go.
	DefaultHostname = "buildkitsandbox"
	// DefaultShmSize is runc's size of /dev/shm: 64 MiB.
	DefaultShmSize = 64 << 20
)

// Hosts is the /etc/hosts of a step as BuildKit writes it (executor/oci/hosts.go).
func Hosts(hostname string, extra []Host) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname)
	for _, h := range extra {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Name)
	}
	return b.Bytes()
}

// ResolvConf is our own /etc/resolv.conf below root, verbatim: steps use our network, so our name servers are theirs,
// a local one included. BuildKit does the same for its host network.
func ResolvConf(root string) []byte {
	b, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf"))
	if err != nil {
		return []byte{} // none: names come from /etc/hosts, or not at all
	}
	return b
}
