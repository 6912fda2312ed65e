// Package webtest has faults of http servers for tests.
package webtest

import "net/http"

// Cut returns a writer that hands on the first bytes of an answer to w, and hangs up where more follow.
func Cut(w http.ResponseWriter, first int) http.ResponseWriter { return &cut{w, first} }

type cut struct {
	http.ResponseWriter
	left int
}

// Write writes on, or ends the connection.
func (c *cut) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])                // the connection ends here
		_ = http.NewResponseController(c.ResponseWriter).Flush() // likewise
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}
