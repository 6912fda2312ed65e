package sentry

import (
	"testing"

	"hako/internal/sandbox/remote"
)

func TestChildCanDoNothingToTheHost(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	for _, platform := range []string{platformSystrap, platformPtrace} {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			p, confinement, err := (&Options{}).boot(t.Context(), platform)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			for _, line := range confinement {
				t.Log(line)
			}
			res, err := p.Call(t.Context(), remote.Request{Check: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range res.Report {
				t.Errorf("the sentry can still %s", line)
			}
		})
	}
}
