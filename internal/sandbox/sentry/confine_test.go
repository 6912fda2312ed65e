package sentry

import (
	"testing"
)

func TestChildCanDoNothingToTheHost(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	for _, platform := range []string{platformSystrap, platformPtrace} {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			h, err := (&Options{}).boot(t.Context(), platform)
			if err != nil {
				t.Fatal(err)
			}
			defer h.close()
			for _, line := range h.report {
				t.Log(line)
			}
			res, err := h.call(t.Context(), &request{Check: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range res.Report {
				t.Errorf("the sentry can still %s", line)
			}
		})
	}
}
