package conformance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/tools/txtar"
)

// imageSection and archiveSection start the names of those sections of a case that are not context files as they stand.
const (
	imageSection   = "image:"
	archiveSection = "archive:"
)

// Case is one behaviour: what is built, from what, and how it must end.
type Case struct {
	Name string
	Args Args
	// Failure is set if the build has to fail.
	Failure *Failure
	// Refused is set if hako has to fail although BuildKit does not: see README.md.
	Refused *Failure
	// Times says that the times of the configuration and of its history are compared.
	Times bool
	// Kept are attributes that hako's result has to have although BuildKit loses them.
	Kept []Xattr
	// Images are what the Dockerfile can stand on, by repository name.
	Images map[string]ImageSource
	setup  []line
	files  []txtar.File
	// rules say how files are served; repositories are scripts that make git repositories.
	rules        []line
	repositories []txtar.File
	// built are the images as they are in the registry, once they are there.
	built map[string][]v1.Image
}

// Args is what a user would say on the command line.
type Args struct {
	// Dockerfile is relative to the context.
	Dockerfile string
	Target     string
	Platform   string
	// RewriteTimestamp says that no file may be younger than SOURCE_DATE_EPOCH.
	RewriteTimestamp bool
	// BuildArgs and Labels are "name=value" each.
	BuildArgs, Labels []string
	// Contexts are named contexts, "name=place"; "@x" as a place is a directory of the case, "oci-layout://@x…" a layout.
	Contexts []string
	// Secrets are "id=@place", a file of the case; Agents are the ids of ssh agents, which have a key that is made for the test.
	Secrets, Agents []string
	// Network is what steps reach that do not say.
	Network string
}

// Failure is how a build has to fail.
type Failure struct {
	// Line is the line of the Dockerfile that the error names; 0 if it names none.
	Line int
	// Text is part of the message.
	Text string
}

// Xattr is an extended attribute of a file; Path is absolute.
type Xattr struct{ Path, Name, Value string }

// ImageSource is the text that describes an image; equal texts are equal images.
type ImageSource string

// LoadCase reads the case in the file at path; shared are images that every case can use.
func LoadCase(path string, shared map[string]ImageSource) (*Case, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read case: %w", err)
	}
	a := txtar.Parse(data)
	c := &Case{
		Name:   strings.TrimSuffix(filepath.Base(path), ".txtar"),
		Args:   Args{Dockerfile: "Dockerfile", Platform: "linux/amd64"},
		Images: map[string]ImageSource{},
	}
	for name, src := range shared {
		c.Images[name] = src
	}
	lines, err := parseLines(string(a.Comment))
	if err != nil {
		return nil, fmt.Errorf("parse script of %s: %w", c.Name, err)
	}
	for _, l := range lines {
		if err := c.addLine(l); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, l.number, err)
		}
	}
	for _, f := range a.Files {
		if name, ok := strings.CutPrefix(f.Name, imageSection); ok {
			c.Images[name] = ImageSource(f.Data)
			continue
		}
		if name, ok := strings.CutPrefix(f.Name, gitSection); ok {
			c.repositories = append(c.repositories, txtar.File{Name: name, Data: f.Data})
			continue
		}
		if filepath.Base(f.Name) == "Dockerfile" {
			f.Data = bytes.ReplaceAll(f.Data, []byte(filesWord), []byte(c.filesURL()))
		}
		c.files = append(c.files, f)
	}
	for i, a := range c.Args.Contexts {
		c.Args.Contexts[i] = strings.ReplaceAll(a, filesWord, c.filesURL())
	}
	for i, a := range c.Args.BuildArgs {
		c.Args.BuildArgs[i] = strings.ReplaceAll(a, filesWord, c.filesURL())
	}
	return c, nil
}

// filesURL is the case's directory on the server, without a slash at the end.
func (c *Case) filesURL() string { return "http://" + filesAddress + "/" + c.Name }

// LoadImages reads a file with nothing but image sections.
func LoadImages(path string) (map[string]ImageSource, error) {
	a, err := txtar.ParseFile(path)
	if err != nil {
		return nil, fmt.Errorf("read images: %w", err)
	}
	images := map[string]ImageSource{}
	for _, f := range a.Files {
		name, ok := strings.CutPrefix(f.Name, imageSection)
		if !ok {
			return nil, fmt.Errorf("read images: section %q in %s is no image", f.Name, path)
		}
		images[name] = ImageSource(f.Data)
	}
	return images, nil
}

func (c *Case) addLine(l line) error {
	switch l.words[0] {
	case "args":
		return c.Args.parse(l.words[1:])
	case "serve":
		if len(l.words) < 3 {
			return fmt.Errorf("serve: want a path and rules")
		}
		c.rules = append(c.rules, l)
		return nil
	case "times":
		c.Times = true
		return nil
	case "kept":
		if len(l.words) != 4 {
			return fmt.Errorf("kept: want a path, a name and a value")
		}
		c.Kept = append(c.Kept, Xattr{l.words[1], l.words[2], l.words[3]})
		return nil
	case "fails", "refused":
		if len(l.words) != 3 {
			return fmt.Errorf("%s: want a line number and a text", l.words[0])
		}
		n, err := strconv.Atoi(l.words[1])
		if err != nil {
			return fmt.Errorf("%s: parse line number: %w", l.words[0], err)
		}
		if f := (&Failure{Line: n, Text: l.words[2]}); l.words[0] == "fails" {
			c.Failure = f
		} else {
			c.Refused = f
		}
		return nil
	default:
		c.setup = append(c.setup, l)
		return nil
	}
}

func (a *Args) parse(words []string) error {
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return fmt.Errorf("args: %q has no value", w)
		}
		switch name {
		case "--build-arg":
			a.BuildArgs = append(a.BuildArgs, value)
		case "--label":
			a.Labels = append(a.Labels, value)
		case "--target":
			a.Target = value
		case "--platform":
			a.Platform = value
		case "--build-context":
			a.Contexts = append(a.Contexts, value)
		case "--rewrite-timestamp":
			a.RewriteTimestamp = value == "true"
		case "--secret":
			a.Secrets = append(a.Secrets, value)
		case "--ssh":
			a.Agents = append(a.Agents, value)
		case "--network":
			a.Network = value
		case "--file":
			a.Dockerfile = value
		default:
			return fmt.Errorf("args: unknown flag %q", name)
		}
	}
	return nil
}
