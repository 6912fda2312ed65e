package contextsource

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
)

// A stream has no end that can be trusted: a connection that breaks looks like the end of the archive, and half of one may well be
// an archive. So whoever sends a context may say beforehand what it will be, "tar://stdin#sha256=HEX&size=BYTES", and nothing is
// built of anything else. The size is for those who cannot tell the end by closing: nothing is read after it.

// standardInputPlace is standard input as a place.
const standardInputPlace = "tar://stdin"

// StandardInput is the place of an archive on standard input that is known beforehand.
func StandardInput(d digest.Digest, size int64) string {
	return fmt.Sprintf("%s#%s=%s&size=%d", standardInputPlace, d.Algorithm(), d.Encoded(), size)
}

// IsStandardInput says whether a place is standard input.
func IsStandardInput(place string) bool {
	return place == "-" || place == standardInputPlace || strings.HasPrefix(place, standardInputPlace+"#")
}

// IncompleteError is a stream that was to be something else: it may be sent again.
type IncompleteError struct{ text string }

// Error says what is missing.
func (e *IncompleteError) Error() string { return e.text }

// promise is what a stream is to be.
type promise struct {
	digest digest.Digest
	size   int64 // -1 if it is not known
}

// parsePromise reads what a place says of standard input; it returns nil if that is nothing.
func parsePromise(place string) (*promise, error) {
	_, fragment, ok := strings.Cut(place, "#")
	if !ok {
		return nil, nil //nolint:nilnil // nothing is promised
	}
	bad := func(cause error) error {
		return &diag.Error{
			What: "build context " + place, Cause: cause,
			Hint: "Write tar://stdin#sha256=, 64 hexadecimal digits, and &size= with a number of bytes if you know it.",
		}
	}
	values, err := url.ParseQuery(fragment)
	if err != nil {
		return nil, bad(err)
	}
	p := &promise{digest: digest.NewDigestFromEncoded(digest.SHA256, values.Get("sha256")), size: -1}
	if err := p.digest.Validate(); err != nil {
		return nil, bad(err)
	}
	for name := range values {
		if name != "sha256" && name != "size" {
			return nil, bad(fmt.Errorf("nothing is called %s", name))
		}
	}
	if values.Has("size") {
		if p.size, err = strconv.ParseInt(values.Get("size"), 10, 64); err != nil || p.size < 0 {
			return nil, bad(fmt.Errorf("size %q is no number of bytes", values.Get("size")))
		}
	}
	return p, nil
}

// patience is how long nothing may come of a stream that was promised: whoever was to send it may be gone.
const patience = 10 * time.Minute

// kept reads a stream that was promised. It ends only where all of it has come.
type kept struct {
	*promise
	r    io.Reader
	hash hash.Hash
	got  int64
	idle *time.Timer
	err  error // of the end
}

// keep reads r, which is to be p, until nothing comes for a long time. The caller calls stop at the end.
func (p *promise) keep(ctx context.Context, r io.Reader) (k *kept, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	idle := time.AfterFunc(patience, func() {
		cancel(&IncompleteError{fmt.Sprintf("nothing came for %s", patience)})
	})
	k = &kept{promise: p, r: &untilDone{ctx, r}, hash: sha256.New(), idle: idle}
	return k, func() {
		idle.Stop()
		cancel(nil)
	}
}

// Read reads on. Its end is io.EOF where everything is as promised, and an *IncompleteError where not.
func (k *kept) Read(b []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	if k.size >= 0 {
		b = b[:min(int64(len(b)), k.size-k.got)]
	}
	n, err := 0, error(nil)
	if k.size < 0 || k.got < k.size {
		n, err = k.r.Read(b)
	}
	k.idle.Reset(patience)
	k.got += int64(n)
	k.hash.Write(b[:n])
	switch {
	case errors.Is(err, io.EOF), err == nil && k.got == k.size:
		k.err = k.end()
	case err != nil:
		k.err = err
	}
	if n > 0 {
		return n, nil
	}
	return 0, k.err
}

// end judges what has come.
func (k *kept) end() error {
	if k.size >= 0 && k.got < k.size {
		return &IncompleteError{fmt.Sprintf("it ended after %d of %d bytes", k.got, k.size)}
	}
	if d := digest.NewDigest(digest.SHA256, k.hash); d != k.digest {
		return &IncompleteError{fmt.Sprintf("its %d bytes are %s, and not %s", k.got, d, k.digest)}
	}
	return io.EOF
}
