package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"hako/internal/diag"
	"hako/internal/web"
)

// ErrNotFound is the cause of an error about an object that is not there. That there is no such bucket is another error.
var ErrNotFound = errors.New("there is no such object")

// reason is why a service refused.
type reason uint8

const (
	other        reason = iota
	noObject            // the bucket is there
	noBucket            // neither
	denied              // we are known, and may not
	unknownUser         // the credentials are wrong
	expired             // they were right
	skewed              // our clock is wrong
	wrongRegion         // the bucket is elsewhere
	replaced            // the object is another than before
	archived            // it has to be brought back from cold storage first
	emptyRange          // the bytes that were asked for are beyond the end
	rangeIgnored        // a server that cannot answer with a part of an object
)

// answer is the refusal of a service. It holds no secret.
type answer struct {
	reason reason
	// status is HTTP's, code the service's own, message what it said in one line.
	status        int
	code, message string
	// region is where the bucket is; empty if the service did not say.
	region string
}

// Error is "the server answers 403 AccessDenied: …".
func (a *answer) Error() string {
	if a.reason == rangeIgnored {
		return "the server does not answer with the part of the object that was asked for"
	}
	code := a.code
	if code == "" {
		code = http.StatusText(a.status)
	}
	s := fmt.Sprintf("the server answers %d %s", a.status, code)
	if a.message != "" && a.message != code {
		s += ": " + a.message
	}
	if a.region != "" {
		s += fmt.Sprintf(" (the bucket is in %s)", a.region)
	}
	return s
}

// Is makes the refusal of an object that is not there an [ErrNotFound].
func (a *answer) Is(target error) bool {
	return target == ErrNotFound && a.reason == noObject
}

// reasonOf knows what the codes of the three services mean. codes that are not listed mean what their status means.
func reasonOf(status int, code string) reason {
	switch code {
	case "NoSuchKey", "NoSuchVersion", "BlobNotFound", "ResourceNotFound":
		return noObject
	case "NoSuchBucket", "ContainerNotFound":
		return noBucket
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed", "InvalidAuthenticationInfo", "InvalidToken", "MissingAuthenticationToken":
		return unknownUser
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired":
		return expired
	case "RequestTimeTooSkewed", "RequestInTheFuture":
		return skewed
	case "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "IncorrectEndpoint":
		return wrongRegion
	case "InvalidObjectState", "BlobArchived":
		return archived
	}
	switch status {
	case http.StatusNotFound:
		return noObject
	case http.StatusUnauthorized:
		return unknownUser
	case http.StatusForbidden:
		return denied
	case http.StatusPreconditionFailed:
		return replaced
	case http.StatusRequestedRangeNotSatisfiable:
		return emptyRange
	case http.StatusMovedPermanently, http.StatusTemporaryRedirect:
		return wrongRegion
	}
	return other
}

// busyCode says whether a service means that the same request may succeed later, whatever its status is.
func busyCode(code string) bool {
	switch code {
	case "SlowDown", "ServerBusy", "InternalError", "OperationTimedOut", "RequestTimeout", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted":
		return true
	}
	return false
}

// temporary says whether a new try can help.
func temporary(err error) bool {
	var a *answer
	if errors.As(err, &a) {
		return a.reason == other && (web.TemporaryStatus(a.status) || busyCode(a.code))
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || web.Temporary(err)
}

// redact is what may be said of a URL.
func redact(u *url.URL) string { return web.RedactURL(u) }

// explain turns an error into one for people. what says what was attempted ("read").
func (b *Bucket) explain(ctx context.Context, what, key string, err error) error {
	what += " " + b.place.url(key)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if errors.As(err, new(*diag.Error)) {
		return err
	}
	hint := b.hint(err)
	var a *answer
	if !errors.As(err, &a) {
		err = web.RedactError(err, redact)
	}
	if b.anonymous != nil && a != nil && (a.reason == denied || a.reason == unknownUser || a.reason == noObject && a.status != http.StatusNotFound) {
		err = fmt.Errorf("%w; it was asked without credentials, because there are none: %w", err, web.OneLine(b.anonymous, redact))
		hint = b.credentialsHint()
	}
	return &diag.Error{What: what, Cause: err, Hint: hint}
}

// hint is what to do about err.
func (b *Bucket) hint(err error) string {
	var a *answer
	var dns *net.DNSError
	switch {
	case errors.As(err, &a):
		return b.answerHint(a)
	case web.IsTLS(err):
		return "Trust the server's certificate: SSL_CERT_FILE or SSL_CERT_DIR name what is trusted."
	case errors.As(err, &dns):
		return b.nameHint(dns.Name)
	case errors.Is(err, http.ErrSchemeMismatch):
		return "The server speaks plain HTTP: write the endpoint with http://."
	case errors.Is(err, syscall.ECONNREFUSED), web.IsNetwork(err):
		return "Check that the storage service can be reached from here (endpoint, proxy, firewall)."
	}
	return ""
}

func (b *Bucket) nameHint(host string) string {
	switch {
	case b.place.Service == Azure:
		return fmt.Sprintf("Check the name of the storage account %q, and that this machine can resolve it.", b.place.account())
	case b.place.Service == S3 && b.options.env("S3_ENDPOINT") != "":
		return "Check S3_ENDPOINT; if the server has no name for each bucket, set S3_FORCE_PATH_STYLE=true."
	}
	return fmt.Sprintf("Check that this machine can resolve %q.", host)
}

func (b *Bucket) answerHint(a *answer) string {
	switch a.reason {
	case noObject:
		return "Check the name: upper and lower case count, and a directory is no object."
	case noBucket:
		return fmt.Sprintf("Check the name of the bucket, %q, and that the credentials are those of its account.", b.place.Bucket)
	case denied:
		return b.permissionHint()
	case unknownUser:
		return b.credentialsHint()
	case expired:
		return "Get new credentials: those that are here have expired."
	case skewed:
		return "Set this machine's clock: it differs too much from the server's."
	case wrongRegion:
		if a.region != "" {
			return "Set AWS_REGION=" + a.region + "."
		}
		return "Set AWS_REGION to the bucket's region."
	case replaced:
		return "Start again, and let nobody write to the object during a build; or write a new object for each build."
	case archived:
		return "Restore the object from its archive first."
	case rangeIgnored:
		return "Use a server that supports Range, or give the file with https:// or tar://."
	}
	if temporary(a) {
		return "The service has a problem of its own: try again later."
	}
	return ""
}

// permissionHint names what is missing.
func (b *Bucket) permissionHint() string {
	switch b.place.Service {
	case Google:
		return "Grant storage.objects.get and storage.objects.list (to write: create and delete, too), as in the role Storage Object User."
	case Azure:
		return "Grant the role Storage Blob Data Reader (to write: Contributor), or give a signature or key that may do this; look at the account's firewall."
	}
	return "Allow s3:GetObject and s3:ListBucket (to write: s3:PutObject, too); without s3:ListBucket a missing object looks the same."
}

// credentialsHint says where credentials are looked for.
func (b *Bucket) credentialsHint() string {
	switch b.place.Service {
	case Google:
		return "Set GOOGLE_APPLICATION_CREDENTIALS to a key file, or give the pod a workload identity."
	case Azure:
		return "Set AZURE_STORAGE_ACCESS_KEY, append a shared access signature to the URL, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or give the pod a workload identity."
	}
	return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if they are temporary), or give the pod a role."
}
