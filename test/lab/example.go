package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	"mvdan.cc/sh/v3/shell"
)

// ExampleStep is one run of a program in an image, as a file below examples has it: with arguments, or with a script.
type ExampleStep struct {
	Image  string
	Args   []string
	Script []string
}

// ReadExample reads the steps of a file: of a Pod, of a Task of Tekton, of Argo, GitLab, Jenkins, GitHub or Cloud Build; or of a shell
// script, which is one step without an image. The file's name is below the directory examples.
func ReadExample(file string) ([]ExampleStep, error) {
	data, err := ExampleText(file)
	if err != nil {
		return nil, err
	}
	if strings.HasSuffix(file, ".sh") {
		return []ExampleStep{{Script: []string{data}}}, nil
	}
	if strings.HasSuffix(file, "Jenkinsfile") {
		script, err := JenkinsBlock(data, "sh")
		return []ExampleStep{{Script: []string{script}}}, err
	}
	var steps []ExampleStep
	decoder := yaml.NewDecoder(strings.NewReader(data))
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read example %s: %w", file, err)
		}
		found, err := findSteps(&document)
		if err != nil {
			return nil, fmt.Errorf("read example %s: %w", file, err)
		}
		steps = append(steps, found...)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("read example %s: it has no steps", file)
	}
	return steps, nil
}

// ExampleText is a file below the directory examples.
func ExampleText(file string) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(root, "examples", file))
	if err != nil {
		return "", fmt.Errorf("read an example: %w", err)
	}
	return string(data), nil
}

// JenkinsBlock is the only text between triple quotes that a Jenkinsfile gives to a word: yaml or sh.
func JenkinsBlock(text, word string) (string, error) {
	const quotes = "'''"
	parts := strings.Split(text, word+" "+quotes)
	if len(parts) != 2 {
		return "", fmt.Errorf("read a Jenkinsfile: it has %d blocks of %s, want one", len(parts)-1, word)
	}
	block, _, found := strings.Cut(parts[1], quotes)
	if !found {
		return "", fmt.Errorf("read a Jenkinsfile: the block of %s has no end", word)
	}
	return block, nil
}

// findSteps finds what looks like a step in a document of YAML, in the order of the file.
func findSteps(node *yaml.Node) ([]ExampleStep, error) {
	if node.Kind == yaml.MappingNode {
		var n map[string]any
		if err := node.Decode(&n); err != nil {
			return nil, err
		}
		if s, ok := asStep(n); ok {
			return []ExampleStep{s}, nil
		}
	}
	var steps []ExampleStep
	for _, below := range node.Content {
		found, err := findSteps(below)
		if err != nil {
			return nil, err
		}
		steps = append(steps, found...)
	}
	return steps, nil
}

// asStep is the step that a mapping of YAML describes, if it describes one.
func asStep(n map[string]any) (ExampleStep, bool) {
	image, _ := n["image"].(string)
	if name, ok := n["name"].(string); ok && strings.Contains(name, "/") {
		image = name // Cloud Build
	}
	if m, ok := n["image"].(map[string]any); ok {
		image, _ = m["name"].(string) // GitLab
	}
	s := ExampleStep{Image: image, Args: texts(n["args"]), Script: texts(n["script"])}
	if run, ok := n["run"].(string); ok {
		s.Script = []string{run}
	}
	return s, len(s.Args)+len(s.Script) > 0
}

func texts(node any) []string {
	var out []string
	list, _ := node.([]any)
	for _, e := range list {
		out = append(out, fmt.Sprint(e))
	}
	return out
}

// ExecutorArgs are the arguments that the step gives to executor, with variables replaced by what getenv says; nil if it
// does not start it.
func (s ExampleStep) ExecutorArgs(getenv func(string) string) ([]string, error) {
	if len(s.Args) > 0 {
		return s.Args, nil
	}
	return s.args("/kaniko/executor", getenv)
}

// SubmitArgs are likewise those that it gives to hako submit.
func (s ExampleStep) SubmitArgs(getenv func(string) string) ([]string, error) {
	args, err := s.args("/opt/hako/hako", getenv)
	if len(args) == 0 || args[0] != "submit" {
		return nil, err
	}
	return args[1:], err
}

// args are those that a line of the script gives to a program, or to the image executor by docker.
func (s ExampleStep) args(program string, getenv func(string) string) ([]string, error) {
	for _, text := range s.Script {
		text = strings.ReplaceAll(text, "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if i := strings.Index(line, "docker run "); i >= 0 {
				line = line[i:]
			} else if !strings.HasPrefix(line, program+" ") {
				continue
			}
			words, err := shell.Fields(withoutCommands(line), getenv)
			if err != nil {
				return nil, fmt.Errorf("read %q: %w", line, err)
			}
			for i, w := range words {
				if w == program || strings.Contains(w, "/executor:") {
					return words[i+1:], nil
				}
			}
		}
	}
	return nil, nil
}

// withoutCommands takes $(id -u) and the like out of a line: nothing is to be run.
func withoutCommands(line string) string {
	for {
		start := strings.Index(line, "$(")
		if start < 0 {
			return line
		}
		end := strings.IndexByte(line[start:], ')')
		if end < 0 {
			return line
		}
		line = line[:start] + "1" + line[start+end+1:]
	}
}
