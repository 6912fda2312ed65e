package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
)

const (
	tokenService = "lab registry"
	tokenIssuer  = "lab tokens"
)

// TokenServer gives out tokens as the registry's token specification says
// (https://distribution.github.io/distribution/spec/auth/token/), by password and by identity token.
type TokenServer struct {
	// URL is where it is served. Set it before a registry is started.
	URL string
	// Passwords are the users'. IdentityTokens are users by the token that "docker login" would have got them.
	Passwords, IdentityTokens map[string]string
	// May lists what users may pull and push, as prefixes of repositories by user; "" is everybody.
	May map[string][]string

	key         *ecdsa.PrivateKey
	certificate []byte // DER
}

// NewTokenServer makes a key for its signatures.
func NewTokenServer() (*TokenServer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: tokenIssuer}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &TokenServer{key: key, certificate: der}, nil
}

// Certificate is that of the key, as PEM.
func (s *TokenServer) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.certificate})
}

// ServeHTTP answers GET with a password or none, and POST with an identity token, as OAuth 2.0 has it.
func (s *TokenServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	known := !given || s.Passwords[user] == password && password != ""
	if r.Method == http.MethodPost {
		user, known = s.IdentityTokens[r.PostFormValue("refresh_token")]
	}
	if !known {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	scopes := strings.Fields(strings.Join(r.Form["scope"], " "))
	if len(r.Form) == 0 {
		scopes = strings.Fields(strings.Join(r.URL.Query()["scope"], " "))
	}
	token, err := s.token(user, scopes)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300}) // the client notices
}

// grant is one entry of a token's access.
type grant struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// token signs what the user may do of what was asked for.
func (s *TokenServer) token(user string, scopes []string) (string, error) {
	access := []grant{}
	for _, scope := range scopes {
		parts := strings.Split(scope, ":")
		if len(parts) == 3 && s.allowed(user, parts[1]) {
			access = append(access, grant{parts[0], parts[1], strings.Split(parts[2], ",")})
		}
	}
	now := time.Now()
	head, err := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(s.certificate)}})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(map[string]any{
		"iss": tokenIssuer, "sub": user, "aud": tokenService, "jti": rand.Text(), "access": access,
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	a, b, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	signature := make([]byte, 64)
	a.FillBytes(signature[:32])
	b.FillBytes(signature[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

func (s *TokenServer) allowed(user, repository string) bool {
	for _, prefix := range append(s.May[user], s.May[""]...) {
		if repository == prefix || strings.HasPrefix(repository, strings.TrimSuffix(prefix, "/")+"/") {
			return true
		}
	}
	return false
}
