package buckettest

import (
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// signed lets only requests through that are signed with the identity of the tests, for the right region.
func signed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, message := refusal(r); code != "" {
			w.Header().Set("Content-Type", "application/xml")
			status := http.StatusForbidden
			if code == "AuthorizationHeaderMalformed" {
				status = http.StatusBadRequest
			}
			Refuse(w, status, code, message)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Refuse answers as S3 does.
func Refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>%s</Message></Error>`, code, message) // the client may have gone
}

// refusal is what S3 says of a request that is not signed well.
func refusal(r *http.Request) (code, message string) {
	const algorithm = "AWS4-HMAC-SHA256 "
	authorization := r.Header.Get("Authorization")
	if authorization == "" {
		return "AccessDenied", "Access Denied"
	}
	fields := map[string]string{}
	for _, f := range strings.Split(strings.TrimPrefix(authorization, algorithm), ", ") {
		name, value, _ := strings.Cut(f, "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if len(scope) != 5 || scope[0] != AccessKey {
		return "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."
	}
	if scope[2] != region {
		return "AuthorizationHeaderMalformed", fmt.Sprintf("The authorization header is malformed; the region %q is wrong; expecting %q", scope[2], region)
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > 15*time.Minute {
		return "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
	}
	if resign(r, fields["SignedHeaders"], at) != authorization {
		return "SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided."
	}
	return "", ""
}

// resign signs what came in once more.
func resign(r *http.Request, headers string, at time.Time) string {
	again, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+r.Host+r.URL.RequestURI(), nil)
	if err != nil {
		return err.Error()
	}
	for _, h := range strings.Split(headers, ";") {
		if h == "content-length" {
			again.ContentLength = r.ContentLength
		} else if h != "host" {
			again.Header[http.CanonicalHeaderKey(h)] = r.Header.Values(h)
		}
	}
	again.Host = r.Host
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	identity := aws.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey}
	if err := signer.SignHTTP(r.Context(), identity, again, r.Header.Get("X-Amz-Content-Sha256"), "s3", region, at); err != nil {
		return err.Error()
	}
	return again.Header.Get("Authorization")
}

// Noise is n bytes that no compressor makes smaller and that are the same every time.
func Noise(seed string, n int) []byte {
	out := make([]byte, 0, n+16)
	h := fnv.New64a()
	for len(out) < n {
		_, _ = h.Write([]byte(seed)) // never fails
		out = hex.AppendEncode(out, h.Sum(nil))
	}
	return out[:n]
}
