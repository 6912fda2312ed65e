package conformance

import (
	"crypto/ed25519"
	"encoding/pem"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// keyFile is where the key of a case's ssh agents lies.
const keyFile = besideMark + "ssh/key"

// WriteKey makes a key beside the context in dir, if c has agents.
func (c *Case) WriteKey(dir string) error {
	if len(c.Args.Agents) == 0 {
		return nil
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(key, "conformance")
	if err != nil {
		return fmt.Errorf("write a key: %w", err)
	}
	return writeFile(pathIn(dir, keyFile), pem.EncodeToMemory(block))
}
