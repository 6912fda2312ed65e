package build

import (
	"bytes"
	"encoding/pem"
	"errors"

	"hako/internal/cache"
	"hako/internal/event"
	"hako/internal/sign"
)

// cacheSigner is what vouches for records: a secret, or a key pair of cosign's. A public key only verifies. It is nil if records
// are not signed.
func (b *builder) cacheSigner() (_ cache.Signer, writes bool, _ error) {
	k := &b.req.Cache.Key
	if !k.asked() {
		return nil, true, nil
	}
	text, err := b.keyText(k, "the cache's key", "Make a key with: openssl rand -hex 32.")
	if err != nil {
		return nil, false, err
	}
	block, _ := pem.Decode(text)
	switch {
	case block == nil && !bytes.Contains(text, []byte("-----BEGIN")):
		s, err := cache.NewSecret(text)
		return s, true, err
	case block != nil && block.Type == "PUBLIC KEY":
		public, err := sign.ParsePublicKey(text)
		if err != nil {
			return nil, false, err
		}
		b.env.Events.Emit(event.Info{Message: "the cache is only read: its key is a public key"})
		return verifier{public}, false, nil
	}
	key, err := sign.ParseKey(text, []byte(k.Password))
	if err != nil {
		return nil, false, err
	}
	return pair{verifier{key.Public()}, key}, true, nil
}

// verifier is a public key.
type verifier struct{ *sign.PublicKey }

var errPublic = errors.New("there is no signing with a public key")

// Sign implements [cache.Signer].
func (verifier) Sign([]byte) ([]byte, error) { return nil, errPublic }

// pair is a private key and its public key.
type pair struct {
	verifier
	private *sign.Key
}

// Sign implements [cache.Signer].
func (p pair) Sign(message []byte) ([]byte, error) { return p.private.Sign(message) }
