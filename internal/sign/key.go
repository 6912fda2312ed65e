// Package sign makes signatures that cosign 3 accepts, with a key of cosign's on this machine: in-toto statements in DSSE
// envelopes in Sigstore bundles, stored as referrers of what they are about. Nothing is asked of, and nothing told to, anybody:
// no certificate authority, no transparency log.
//
// Signatures are deterministic (RFC 6979 for ECDSA), so signing the same image again adds nothing to a registry.
package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"hako/internal/diag"
)

// Key is a private key to sign with. It may be used from many goroutines.
type Key struct {
	signer crypto.Signer
	hash   crypto.Hash // SHA-256, or 0 for Ed25519, which signs the message itself
	public []byte      // PKIX, DER
}

// The types of PEM that cosign writes for private keys, new and old.
const (
	sigstoreKey = "ENCRYPTED SIGSTORE PRIVATE KEY"
	cosignKey   = "ENCRYPTED COSIGN PRIVATE KEY"
)

// sealedKey is the content of cosign's key file (github.com/secure-systems-lab/go-securesystemslib/encrypted).
type sealedKey struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct{ N, R, P int }
		Salt   []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// maxScrypt bounds the memory that a key file can make us take, in bytes; cosign's own files need 64 MiB.
const maxScrypt = 512 << 20

var errPassword = errors.New("the password is wrong, or the key is damaged")

// ParseKey reads a private key as cosign keeps it: PEM, encrypted with a password that may be empty. Errors hold neither.
func ParseKey(text, password []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, &diag.Error{What: "the signing key is not in PEM form", Hint: "Make one with: cosign generate-key-pair."}
	}
	switch block.Type {
	case sigstoreKey, cosignKey:
	case "PUBLIC KEY":
		return nil, &diag.Error{What: "the signing key is a public key", Hint: "Give the private key, cosign.key."}
	default:
		return nil, &diag.Error{
			What: fmt.Sprintf("the signing key is of type %q, which cosign does not take either", block.Type),
			Hint: "Encrypt it with: cosign import-key-pair --key FILE.",
		}
	}
	der, err := open(block.Bytes, password)
	if errors.Is(err, errPassword) {
		return nil, &diag.Error{What: "decrypt the signing key", Cause: err, Hint: "Set COSIGN_PASSWORD to the password of the key."}
	}
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	defer clear(der)
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	return newKey(parsed)
}

// open decrypts a key file's content.
func open(data, password []byte) ([]byte, error) {
	var s sealedKey
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, errors.New("it is not a key of cosign's")
	}
	p := s.KDF.Params
	if s.KDF.Name != "scrypt" || s.Cipher.Name != "nacl/secretbox" || len(s.Cipher.Nonce) != 24 {
		return nil, fmt.Errorf("it is encrypted with %.20q and %.20q, which are not known here", s.KDF.Name, s.Cipher.Name)
	}
	if p.N <= 1 || p.R <= 0 || p.P <= 0 || p.P > 16 || p.N > maxScrypt/128/p.R {
		return nil, errors.New("its encryption has senseless parameters")
	}
	derived, err := scrypt.Key(password, s.KDF.Salt, p.N, p.R, p.P, 32)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	out, ok := secretbox.Open(nil, s.Ciphertext, (*[24]byte)(s.Cipher.Nonce), (*[32]byte)(derived))
	if !ok {
		return nil, errPassword
	}
	return out, nil
}

// newKey takes the kinds of keys that cosign has.
func newKey(parsed any) (*Key, error) {
	k := &Key{hash: crypto.SHA256} // of all curves: "cosign verify --key" knows no other
	switch private := parsed.(type) {
	case *ecdsa.PrivateKey:
		k.signer = private
	case ed25519.PrivateKey:
		k.signer, k.hash = private, 0
	case *rsa.PrivateKey:
		k.signer = private
	default:
		return nil, fmt.Errorf("read the signing key: there is no signing with keys of type %T", parsed)
	}
	var err error
	if k.public, err = x509.MarshalPKIXPublicKey(k.signer.Public()); err != nil {
		return nil, fmt.Errorf("read the signing key: %w", err)
	}
	return k, nil
}

// PublicKey is the public key as cosign.pub has it.
func (k *Key) PublicKey() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.public})
}

// hint names the public key in bundles, as cosign does.
func (k *Key) hint() string {
	sum := sha256.Sum256(k.public)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// sign signs a message. Without randomness, the signature of a message is always the same.
func (k *Key) sign(message []byte) ([]byte, error) {
	digest := message
	if k.hash != 0 {
		h := k.hash.New()
		_, _ = h.Write(message) // cannot fail
		digest = h.Sum(nil)
	}
	sig, err := k.signer.Sign(nil, digest, k.hash)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return bytes.Clone(sig), nil
}
