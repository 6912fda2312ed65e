package credential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"hako/internal/registry"
)

const (
	// programPrefix begins the name of a program that docker's configuration calls a credential helper
	// (docker/docker-credential-helpers, README).
	programPrefix = "docker-credential-"
	// notFound and noServer are what the protocol's own library prints (credentials.NewErrCredentialsNotFound,
	// NewErrCredentialsMissingServerURL); docker knows them by these words.
	notFound    = "credentials not found in native keychain"
	noServer    = "no credentials server URL"
	serverLimit = 64 << 10
	publicECR   = "public.ecr.aws"
	// ignoreStorage makes Amazon's helper say yes to whoever wants to store something
	// (awslabs/amazon-ecr-credential-helper, README).
	ignoreStorage = "AWS_ECR_IGNORE_CREDS_STORAGE"
)

// programs are the names of credential helpers as docker's configuration has them, each with the helper that does its work:
// those of the programs that kaniko's images carry, and gcloud's.
func programs() map[string]string {
	return map[string]string{"ecr-login": "ecr", "gcr": "google", "gcloud": "google", "acr-env": "acr"}
}

// Programs are the helpers that stand in for docker-credential-* programs, by the names that docker's configuration has for them.
func Programs(getenv func(string) string) map[string]registry.Helper {
	out := map[string]registry.Helper{}
	for program, name := range programs() {
		if helpers, err := Helpers([]string{name}, getenv); err == nil && len(helpers) == 1 {
			out[program] = helpers[0]
		}
	}
	return out
}

// IsProgram says whether a program of that name is a credential helper that Serve can be: docker-credential-ecr-login.
func IsProgram(name string) bool {
	suffix, ok := strings.CutPrefix(name, programPrefix)
	return ok && programs()[suffix] != ""
}

// Process is what a credential helper has of a process.
type Process struct {
	// Name is the program's, without directories.
	Name           string
	Args           []string
	Getenv         func(string) string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Version is hako's.
	Version string
}

// Serve answers as docker's credential helpers do: a server's address on standard input, credentials as JSON on standard
// output; or, with exit code 1, why there are none. Nothing is ever stored, so there is nothing to list or erase.
func Serve(ctx context.Context, p Process) (exitCode int) {
	suffix := strings.TrimPrefix(p.Name, programPrefix)
	command := ""
	if len(p.Args) == 1 {
		command = p.Args[0]
	}
	var err error
	switch {
	case command == "get":
		err = p.get(ctx, suffix)
	case command == "list":
		_, err = fmt.Fprintln(p.Stdout, "{}")
	case (command == "store" || command == "erase") && suffix == "ecr-login" && isTrue(p.Getenv(ignoreStorage)):
	case command == "store" || command == "erase":
		err = fmt.Errorf("%s stores nothing: it asks the cloud each time, with the identity of this machine, pod or job", p.Name)
	case command == "version" || command == "--version" || command == "-v":
		_, err = fmt.Fprintf(p.Stdout, "%s (hako) %s\n", p.Name, p.Version)
	case programs()[suffix] == "google" && len(p.Args) > 0 && (p.Args[0] == "config" || p.Args[0] == "configure-docker"):
		_, err = fmt.Fprintf(p.Stderr, "%s %s: nothing is changed: hako asks Google for all of its registries, with application default credentials\n", p.Name, p.Args[0])
	default:
		_, _ = fmt.Fprintf(p.Stdout, "Usage: %s <store|get|erase|list|version>\n", p.Name) // there is nobody else to tell
		return 1
	}
	if err != nil {
		_, _ = fmt.Fprintln(p.Stdout, err) // there is nobody else to tell
		return 1
	}
	return 0
}

// get prints the credentials for the server that standard input names.
func (p Process) get(ctx context.Context, suffix string) error {
	input, err := io.ReadAll(io.LimitReader(p.Stdin, serverLimit))
	if err != nil {
		return fmt.Errorf("read the server's address: %w", err)
	}
	server := strings.TrimSpace(string(input))
	if server == "" {
		return errors.New(noServer)
	}
	found, err := p.find(ctx, suffix, hostOf(server))
	if err != nil && hostOf(server) == publicECR {
		_, _ = fmt.Fprintln(p.Stderr, err) // a note: everybody may pull from there
		return errors.New(notFound)
	}
	if err != nil {
		return err
	}
	if found == nil {
		return errors.New(notFound)
	}
	return json.NewEncoder(p.Stdout).Encode(struct{ ServerURL, Username, Secret string }{server, found.Username, found.Password})
}

func (p Process) find(ctx context.Context, suffix, host string) (*authn.AuthConfig, error) {
	h, ok := Programs(p.Getenv)[suffix]
	if !ok {
		return nil, errors.New("this build of hako has no cloud's software (build tag slim)")
	}
	return h.Get(ctx, host)
}

func isTrue(value string) bool {
	yes, err := strconv.ParseBool(value)
	return err == nil && yes
}

// hostOf is the host of a server's address, which may have a scheme and a path.
func hostOf(server string) string {
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(u.Host, ":443")
}
