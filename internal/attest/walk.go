package attest

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/purl"
)

type (
	// step is one vertex of the build: a source, or an instruction that makes a layer.
	step struct {
		ID string `json:"id"`
		// Source is an image, a URL, "local://context" or "scratch" of a step without an instruction.
		Source string `json:"source,omitempty"`
		// Name, Instruction and Definition are those of the plan; Definition says what is done, line by line.
		Name        string   `json:"name,omitempty"`
		Instruction string   `json:"instruction,omitempty"`
		Definition  []string `json:"definition,omitempty"`
		Platform    string   `json:"platform,omitempty"`
		// Inputs are the steps whose files it needs, as "step0:0": first those it stands on.
		Inputs []string `json:"inputs,omitempty"`
	}
	sourceMap struct {
		Locations map[string]locations `json:"locations,omitempty"`
		Infos     []sourceInfo         `json:"infos"`
	}
	sourceInfo struct {
		Filename string `json:"filename"`
		Language string `json:"language"`
		Data     []byte `json:"data"` // base64 in JSON
	}
	locations struct {
		Locations []location `json:"locations"`
	}
	location struct {
		Ranges []lineRange `json:"ranges"`
	}
	lineRange struct {
		Start position `json:"start"`
		End   position `json:"end"`
	}
	position struct {
		Line int `json:"line"`
	}
)

// walk numbers the steps of a graph and collects what they need.
type walk struct {
	graph *plan.Graph
	build Build

	steps     []step
	ids       map[string]int      // of sources, by name
	tops      map[*plan.Stage]int // the last step of each stage; -1 for an empty one
	locations map[string]locations
	chain     []int // the steps of the target's layers; first its base, or -1

	images       []*plan.ImageRef
	sources      []*plan.Source // each once, by what it is
	secrets, ssh []secret
	network      bool
}

func newWalk(g *plan.Graph, b Build) *walk {
	w := &walk{graph: g, build: b, ids: map[string]int{}, tops: map[*plan.Stage]int{}, locations: map[string]locations{}}
	chains := map[*plan.Stage][]int{}
	for _, st := range g.Stages {
		chains[st] = w.stage(st, chains)
	}
	w.chain = chains[g.Target]
	byID := func(a, b secret) int { return cmp.Compare(a.ID, b.ID) }
	slices.SortFunc(w.secrets, byID)
	slices.SortFunc(w.ssh, byID)
	return w
}

// stage numbers the steps of st. It returns the steps whose layers make up its image.
func (w *walk) stage(st *plan.Stage, chains map[*plan.Stage][]int) []int {
	var chain []int
	switch {
	case st.Base.Stage != nil:
		chain = slices.Clone(chains[st.Base.Stage])
	case st.Base.Image != nil:
		chain = []int{w.image(st.Base.Image)}
	default:
		chain = []int{-1}
	}
	for _, s := range st.Steps {
		if s.Op != nil {
			chain = append(chain, w.step(s, chain[len(chain)-1]))
		}
	}
	w.tops[st] = chain[len(chain)-1]
	return chain
}

func (w *walk) add(s step) int {
	n := len(w.steps)
	s.ID = stepID(n)
	w.steps = append(w.steps, s)
	return n
}

func stepID(n int) string { return "step" + strconv.Itoa(n) }

// source is the step of something that comes from outside, by its name.
func (w *walk) source(name string, platform *ocispec.Platform) int {
	s := step{Source: name}
	if platform != nil {
		s.Platform = image.FormatPlatform(*platform)
	}
	key := s.Source + " " + s.Platform
	n, ok := w.ids[key]
	if !ok {
		n = w.add(s)
		w.ids[key] = n
	}
	return n
}

func (w *walk) image(ref *plan.ImageRef) int {
	before := len(w.steps)
	name := ref.String()
	if !strings.Contains(name, "://") {
		name = "docker-image://" + name
	}
	n := w.source(name, &ref.Platform)
	if n == before {
		w.images = append(w.images, ref)
	}
	return n
}

// step adds an instruction that stands on the step below, or on nothing if that is -1.
func (w *walk) step(s *plan.Step, below int) int {
	var inputs []string
	need := func(n int) {
		if in := stepID(n) + ":0"; n >= 0 && !slices.Contains(inputs, in) {
			inputs = append(inputs, in)
		}
	}
	need(below)
	for _, from := range s.Reads() {
		need(w.from(from))
	}
	if op, ok := s.Op.(*plan.Run); ok {
		w.run(op)
	}
	n := w.add(step{
		Name: s.ID, Instruction: s.Text, Definition: s.Describe(), Platform: image.FormatPlatform(s.Platform), Inputs: inputs,
	})
	if s.Span.Start > 0 && s.Span.File == w.build.Dockerfile {
		w.locations[stepID(n)] = locations{[]location{{[]lineRange{{position{s.Span.Start}, position{s.Span.End}}}}}}
	}
	return n
}

// run notes what a command can see of the user's secrets and of the network.
func (w *walk) run(op *plan.Run) {
	w.network = w.network || op.Network != plan.NetworkNone
	for _, m := range op.Mounts {
		switch src := m.Source.(type) {
		case *plan.SecretMount:
			w.secrets = addSecret(w.secrets, secret{src.ID, !src.Required})
		case *plan.SSHMount:
			w.ssh = addSecret(w.ssh, secret{src.ID, !src.Required})
		}
	}
}

// addSecret adds a secret once; it is optional if it is everywhere.
func addSecret(list []secret, s secret) []secret {
	i := slices.IndexFunc(list, func(other secret) bool { return other.ID == s.ID })
	if i < 0 {
		return append(list, s)
	}
	list[i].Optional = list[i].Optional && s.Optional
	return list
}

// from is the step of what is read; -1 for an empty stage.
func (w *walk) from(f plan.From) int {
	switch {
	case f.Stage != nil:
		return w.tops[f.Stage]
	case f.Image != nil:
		return w.image(f.Image)
	case f.Source != nil:
		before := len(w.steps)
		n := w.source(cmp.Or(f.Source.URI(), "local://"+localName(f.Source)), nil)
		if n == before {
			w.sources = append(w.sources, f.Source)
		}
		return n
	}
	return w.source("local://context", nil)
}

// localName is the name of a named context.
func localName(s *plan.Source) string { return strings.TrimPrefix(s.Name, "context ") }

// sourceMap is the Dockerfile and where in it the steps are.
func (w *walk) sourceMap() *sourceMap {
	if w.build.Source == nil {
		return nil
	}
	return &sourceMap{
		Locations: w.locations,
		Infos:     []sourceInfo{{Filename: w.build.Dockerfile, Language: "Dockerfile", Data: w.build.Source}},
	}
}

// layers are, for each step of the target's image, all layers up to it.
func (w *walk) layers() map[string][][]ocispec.Descriptor {
	base := len(w.build.Layers) - (len(w.chain) - 1)
	if w.build.Layers == nil || base < 0 {
		return nil
	}
	out := map[string][][]ocispec.Descriptor{}
	for i, n := range w.chain {
		if n >= 0 && base+i > 0 {
			out[stepID(n)+":0"] = [][]ocispec.Descriptor{w.build.Layers[:base+i]}
		}
	}
	return out
}

// imageResource names an image by its reference and digest.
func imageResource(ref *plan.ImageRef) (resource, error) {
	r := resource{}
	if ref.Digest != "" {
		r.Digest = digestSet(ref.Digest)
	}
	if dir, ok := strings.CutPrefix(ref.Ref, "oci-layout://"); ok {
		dir, _, _ = strings.Cut(dir, "@")
		r.URI = purl.URL{Type: "oci", Name: strings.ToLower(path.Base(dir)), Version: ref.Digest.String()}.String()
		return r, nil
	}
	var err error
	if r.URI, err = purl.Image(ref.Ref, ref.Platform); err != nil {
		return r, fmt.Errorf("name an image of the build: %w", err)
	}
	return r, nil
}

// sourceResource names a source that is not local.
func (w *walk) sourceResource(s *plan.Source) (resource, bool) {
	r := resource{URI: s.URI()}
	if r.URI == "" {
		return r, false
	}
	if w.build.Resolved != nil {
		r.Digest = parseDigest(w.build.Resolved(s))
	}
	switch {
	case r.Digest != nil:
	case s.HTTP != nil:
		r.Digest = parseDigest(s.HTTP.Checksum.String())
	case s.Git != nil:
		r.Digest = parseDigest(commitDigest(s.Git.Checksum))
	}
	return r, true
}

// commitDigest is a whole commit with its algorithm; empty for the first digits of one.
func commitDigest(commit string) string {
	switch len(commit) {
	case 40:
		return "sha1:" + commit
	case 64:
		return "sha256:" + commit
	}
	return ""
}
