package image

import (
	"fmt"
	"slices"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Default is the platform of this machine.
func Default() ocispec.Platform { return Normalize(platforms.DefaultSpec()) }

// ParsePlatform reads "os/arch[/variant]", or one of the two, in any of the usual spellings ("x86_64", "aarch64").
// It refuses what no image can be built for; see Supported.
func ParsePlatform(s string) (ocispec.Platform, error) {
	p, err := platforms.Parse(s)
	if err != nil {
		return ocispec.Platform{}, fmt.Errorf("platform %q: write it as os/arch[/variant], such as linux/arm64", s)
	}
	if err := Supported(p); err != nil {
		return ocispec.Platform{}, err
	}
	return p, nil
}

// ParsePlatforms reads a list of platforms, each as [ParsePlatform] does, and returns them normalized and each once, in their order.
func ParsePlatforms(list []string) ([]ocispec.Platform, error) {
	seen := map[string]bool{}
	var out []ocispec.Platform
	for _, s := range list {
		p, err := ParsePlatform(s)
		if err != nil {
			return nil, err
		}
		p = Normalize(p)
		if name := FormatPlatform(p); !seen[name] {
			seen[name] = true
			out = append(out, p)
		}
	}
	return out, nil
}

// Supported says why images for p cannot be built, or nil.
func Supported(p ocispec.Platform) error {
	if p.OS != "linux" {
		return fmt.Errorf("platform %s: only linux images can be built", FormatPlatform(p))
	}
	if !slices.Contains(linuxArchitectures(), p.Architecture) {
		return fmt.Errorf("platform %s: unknown architecture %q", FormatPlatform(p), p.Architecture)
	}
	return nil
}

// linuxArchitectures are the values of GOARCH with a Linux, and 32-bit ones that images exist for.
func linuxArchitectures() []string {
	return []string{
		"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
		"ppc64", "ppc64le", "riscv64", "s390x",
	}
}

// Normalize brings p into the form that images carry: "x86_64" is "amd64", "arm64/v8" is "arm64", "arm" is "arm/v7".
func Normalize(p ocispec.Platform) ocispec.Platform { return platforms.Normalize(p) }

// FormatPlatform is "linux/arm/v7".
func FormatPlatform(p ocispec.Platform) string { return platforms.FormatAll(p) }

// SelectPlatform returns the index of the one of have that serves want best, or -1 if none does.
// An exact match is best; then the nearest older variant that want's processor runs.
func SelectPlatform(want ocispec.Platform, have []ocispec.Platform) int {
	m := platforms.Only(Normalize(want))
	best := -1
	for i, p := range have {
		if m.Match(p) && (best < 0 || m.Less(p, have[best])) {
			best = i
		}
	}
	return best
}

// Empty is the configuration of "FROM scratch" for p, as BuildKit makes it.
func Empty(p ocispec.Platform) Config {
	var c Config
	c.Platform = p
	c.OSFeatures = slices.Clone(p.OSFeatures)
	c.RootFS.Type = "layers"
	c.Config.WorkingDir = "/"
	c.Config.Env = []string{"PATH=" + DefaultPath}
	return c
}

// DefaultPath is the PATH of a configuration that sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // BuildKit: util/system
