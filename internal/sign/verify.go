package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"hako/internal/diag"
)

// PublicKey verifies what was signed with a Key. It may be used from many goroutines.
type PublicKey struct{ key crypto.PublicKey }

// ParsePublicKey reads a public key as cosign writes it, cosign.pub.
func ParsePublicKey(text []byte) (*PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, &diag.Error{What: "the public key is not in PEM form", Hint: "Give cosign.pub, which cosign generate-key-pair makes."}
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	switch key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
		return &PublicKey{key}, nil
	}
	return nil, fmt.Errorf("read the public key: there is no signing with keys of type %T", key)
}

// Public is the key that verifies what k signs.
func (k *Key) Public() *PublicKey { return &PublicKey{k.signer.Public()} }

// Sign signs a message. What the message is for has to be in it: the key signs images, too.
func (k *Key) Sign(message []byte) ([]byte, error) { return k.sign(message) }

// Verify says whether a signature of message was made with the private key.
func (p *PublicKey) Verify(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch key := p.key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, sum[:], signature)
	case ed25519.PublicKey:
		return ed25519.Verify(key, message, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}
