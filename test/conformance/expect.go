package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Expectation is what a case must end with. It is the same for every builder that is right.
type Expectation struct {
	// Error is the message of BuildKit, for reference; only whether it is empty is compared.
	Error string `json:"error,omitempty"`
	// Base is the image that the result stands on, of those of the case; empty if on none.
	Base string `json:"base,omitempty"`
	// Layers counts the layers above Base.
	Layers int `json:"layers"`
	// Config is the configuration without times, layers and history.
	Config map[string]any `json:"config,omitempty"`
	// Created is the time of the image, if the case compares times.
	Created string `json:"created,omitempty"`
	// History has the entries as the configuration has them, without times unless the case compares them.
	History []any `json:"history,omitempty"`
	// Tree says how the file tree differs from Base's.
	Tree []string `json:"tree,omitempty"`
	// Platforms are the images of an index, by platform; then nothing else is set.
	Platforms map[string]*Expectation `json:"platforms,omitempty"`
}

// DescribeAll turns the results of a build into what is compared: the one image, or the images of an index.
func DescribeAll(results map[string]*Result, images map[string][]v1.Image, names map[string]string) (*Expectation, error) {
	all := &Expectation{Platforms: map[string]*Expectation{}}
	for platform, r := range results {
		e, err := Describe(r, images, names)
		if err != nil || platform == "" {
			return e, err
		}
		all.Platforms[platform] = e
	}
	return all, nil
}

// Describe turns a result into what is compared, see DropTimes.
// images are those that the result can stand on; names says what to call contents that change from machine to machine.
func Describe(r *Result, images map[string][]v1.Image, names map[string]string) (*Expectation, error) {
	e := &Expectation{Config: map[string]any{}}
	var under int
	var err error
	if e.Base, under, err = findBase(r.DiffIDs, images); err != nil {
		return nil, fmt.Errorf("find base: %w", err)
	}
	e.Layers = len(r.DiffIDs) - under
	base, err := r.apply(under)
	if err != nil {
		return nil, fmt.Errorf("apply base: %w", err)
	}
	top, err := r.apply(len(r.DiffIDs))
	if err != nil {
		return nil, fmt.Errorf("apply layers: %w", err)
	}
	e.Tree = difference(base.describe(names), top.describe(names))
	for k, v := range r.Config {
		switch k {
		case "created", "rootfs":
		case "history":
			e.History, _ = v.([]any)
		default:
			e.Config[k] = v
		}
	}
	if c, ok := r.Config["created"].(string); ok {
		e.Created = nowOr(c)
	}
	for _, h := range e.History {
		if m, ok := h.(map[string]any); ok {
			if c, ok := m["created"].(string); ok {
				m["created"] = nowOr(c)
			}
		}
	}
	dropEmpty(e.Config)
	return e, nil
}

// nowOr is text, a time, or "now" if the build was then.
func nowOr(text string) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err == nil && isNow(t) {
		return "now"
	}
	return text
}

// DropTimes removes the times of the configuration and of its history, for all platforms.
func (e *Expectation) DropTimes() {
	for _, p := range e.Platforms {
		p.DropTimes()
	}
	e.Created = ""
	for _, h := range e.History {
		if m, ok := h.(map[string]any); ok {
			delete(m, "created")
		}
	}
}

// dropEmpty removes null members: an absent value and a null mean the same.
func dropEmpty(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			dropEmpty(v)
			if len(v) == 0 && k == "config" {
				delete(m, k)
			}
		}
	}
}

// findBase returns the image that has the most layers of those whose layers are the first of diffIDs.
func findBase(diffIDs []string, images map[string][]v1.Image) (name string, n int, err error) {
	for repo, list := range images {
		for _, im := range list {
			cf, err := im.ConfigFile()
			if err != nil {
				return "", 0, err
			}
			k := len(cf.RootFS.DiffIDs)
			if k > len(diffIDs) || !equalHashes(cf.RootFS.DiffIDs, diffIDs) {
				continue
			}
			if k > n || k == n && k > 0 && repo < name {
				name, n = repo, k
			}
		}
	}
	return name, n, nil
}

func equalHashes(hashes []v1.Hash, texts []string) bool {
	for i, h := range hashes {
		if h.String() != texts[i] {
			return false
		}
	}
	return true
}

// LoadExpectation reads the expectation in the file at path.
func LoadExpectation(path string) (*Expectation, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read expectation: %w", err)
	}
	e := &Expectation{}
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("decode expectation: %w", err)
	}
	return e, nil
}

// Save writes the expectation to the file at path.
func (e *Expectation) Save(path string) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(e); err != nil {
		return fmt.Errorf("encode expectation: %w", err)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write expectation: %w", err)
	}
	return nil
}
