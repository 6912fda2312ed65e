package build

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"hako/internal/diag"
	"hako/internal/solve"
	"hako/internal/sshagent"
)

// Secret is what RUN --mount=type=secret shows. It is never written anywhere, nor put into any message.
type Secret struct {
	ID string
	// Path is the absolute path of a file; it is read when a step needs it, once. Value counts if it is empty.
	Path  string
	Value SecretValue
}

// SecretValue is a secret that does not print.
type SecretValue string

// String hides the secret.
func (SecretValue) String() string { return "****" }

// GoString hides the secret.
func (SecretValue) GoString() string { return "****" }

// maxSecret bounds a secret, in bytes. BuildKit has the same bound.
const maxSecret = 500 << 10

var errSecretSize = errors.New("it is bigger than 500 KiB")

// secrets are the secrets of a build, by ID.
type secrets map[string]func() ([]byte, error)

// newSecrets checks what is given. The last one of an ID counts.
func newSecrets(given []Secret) (secrets, error) {
	out := secrets{}
	for _, s := range given {
		if s.Path == "" {
			out[s.ID] = func() ([]byte, error) { return []byte(s.Value), nil }
			if len(s.Value) > maxSecret {
				return nil, s.fail(errSecretSize)
			}
			continue
		}
		fi, err := os.Stat(s.Path)
		switch {
		case err == nil && fi.IsDir():
			err = errors.New("it is a directory")
		case err == nil && fi.Size() > maxSecret:
			err = errSecretSize
		}
		if err != nil {
			return nil, s.fail(err)
		}
		out[s.ID] = sync.OnceValues(s.read)
	}
	return out, nil
}

// read reads the file, which may be a pipe.
func (s *Secret) read() ([]byte, error) {
	f, err := os.Open(s.Path)
	if err != nil {
		return nil, s.fail(err)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(data) > maxSecret {
		err = errSecretSize
	}
	if err != nil {
		return nil, s.fail(err)
	}
	return data, nil
}

func (s *Secret) fail(err error) error {
	return &diag.Error{What: fmt.Sprintf("--secret id=%s", s.ID), Cause: err, Hint: "Give a file that exists and can be read, or a variable with env=NAME."}
}

var _ solve.Secrets = secrets(nil)

// Has implements [solve.Secrets].
func (s secrets) Has(id string) bool { return s[id] != nil }

// Read implements [solve.Secrets].
func (s secrets) Read(id string) ([]byte, error) { return s[id]() }

// openSecrets looks for the secrets and agents that the user names.
func (b *builder) openSecrets() (err error) {
	if b.secrets, err = newSecrets(b.req.Secrets); err != nil {
		return err
	}
	var configs []sshagent.Config
	for _, a := range b.req.Agents {
		configs = append(configs, sshagent.Config{ID: a.ID, Paths: a.Paths, Raw: a.Raw})
	}
	b.agents, err = sshagent.Open(configs)
	return err
}
