package registry_test

import (
	"bytes"
	"net/http"
	"testing"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// TestCutUpload cuts uploads within their content. What arrived is not sent again to a registry that knows it.
func TestCutUpload(t *testing.T) {
	t.Parallel()
	data := noise(300_000)
	for name, tc := range map[string]struct {
		knows  bool
		faults []registrytest.Fault
		// begun and sent are how often an upload begins, and content is sent.
		begun, sent int
		fails       bool
	}{
		"resumed": {knows: true, faults: []registrytest.Fault{{TakeOnly: 100_000, Times: 1}}, begun: 1, sent: 2},
		"resumed again and again": {
			knows: true, faults: []registrytest.Fault{{TakeOnly: 50_000, Times: 4}}, begun: 1, sent: 5,
		},
		"answer lost":  {knows: true, faults: []registrytest.Fault{{LoseAnswer: true, Times: 1}}, begun: 1, sent: 1},
		"none arrived": {knows: true, faults: []registrytest.Fault{{Reset: true, Times: 1}}, begun: 2, sent: 2},
		"not known":    {faults: []registrytest.Fault{{TakeOnly: 100_000, Times: 1}}, begun: 2, sent: 2},
		"always": {
			knows: true, faults: []registrytest.Fault{{TakeOnly: 10}}, begun: 4, sent: 24, fails: true,
		},
		"too much of it": {
			knows: true, faults: []registrytest.Fault{{TakeOnly: 100_000, Times: 1}, {Status: http.StatusRequestedRangeNotSatisfiable, Times: 1}}, begun: 2, sent: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.KnowsUploads = tc.knows
			for _, f := range tc.faults {
				f.Method = "PATCH"
				reg.Inject(f)
			}
			host := reg.Start(t)
			err := open(t, quick(), host+"/a", registry.Push).Upload(t.Context(), blobOf(data))
			if (err != nil) != tc.fails {
				t.Fatal(err)
			}
			if got := [2]int{reg.Count("POST", "/uploads/"), reg.Count("PATCH", "/uploads/")}; got != [2]int{tc.begun, tc.sent} {
				t.Errorf("began and sent %v times, want %d, %d", got, tc.begun, tc.sent)
			}
			if tc.fails {
				return
			}
			if got, err := read(t, open(t, quick(), host+"/a", registry.Pull), descriptorOf(data)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
}
