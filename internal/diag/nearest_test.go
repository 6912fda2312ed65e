package diag_test

import (
	"testing"

	"hako/internal/diag"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	options := []string{"RUN", "ENV", "COPY", "ENTRYPOINT", "chmod", "chown", "build"}
	for _, tt := range []struct{ in, want string }{
		{"RNU", "RUN"}, {"CPOY", "COPY"}, {"copy", "COPY"}, {"chwon", "chown"}, {"ENTRPOINT", "ENTRYPOINT"},
		{"bild", "build"}, {"&&", ""}, {"", ""}, {"production", ""}, {"RUN", ""},
	} {
		got, ok := diag.Nearest(tt.in, options)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("Nearest(%q) = %q, %v, want %q", tt.in, got, ok, tt.want)
		}
	}
}
