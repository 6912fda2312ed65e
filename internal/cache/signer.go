package cache

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"

	"hako/internal/diag"
)

// Signer vouches for records, so that who can only write to a store cannot put anything into images.
// It may be used from many goroutines.
type Signer interface {
	// Sign returns a signature of message.
	Sign(message []byte) ([]byte, error)
	// Verify says whether it is one that Sign of the same key made.
	Verify(message, signature []byte) bool
}

// secret is a key that all who share a cache have.
type secret []byte

var _ Signer = secret(nil)

// minSecret is the length in bytes below which a key can be guessed.
const minSecret = 16

// NewSecret returns a signer with HMAC-SHA256 (RFC 2104). White space at the ends of the key does not count.
func NewSecret(key []byte) (Signer, error) {
	key = bytes.TrimSpace(key)
	if len(key) < minSecret {
		return nil, &diag.Error{What: fmt.Sprintf("the cache's key has %d bytes", len(key)), Hint: "Make one with: openssl rand -hex 32."}
	}
	return secret(bytes.Clone(key)), nil
}

// Sign implements [Signer].
func (s secret) Sign(message []byte) ([]byte, error) {
	h := hmac.New(sha256.New, s)
	_, _ = h.Write(message) // cannot fail
	return h.Sum(nil), nil
}

// Verify implements [Signer].
func (s secret) Verify(message, signature []byte) bool {
	want, err := s.Sign(message)
	return err == nil && hmac.Equal(want, signature)
}
