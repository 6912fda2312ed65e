package kubernetes

import (
	"os"
	"testing"
)

// TestKubernetes runs its parts one after the other on one cluster, with one registry and one set of images.
//
//	go test ./test/kubernetes -run TestKubernetes/Debian
//	HAKO_TEST_SIZING="2Gi 2" go test ./test/kubernetes -v     only measures
func TestKubernetes(t *testing.T) {
	f := newFixture(t)
	type part struct {
		name string
		run  func(*testing.T, *fixture)
	}
	parts := []part{
		{"Small", testSmall},
		{"Manifests", testManifests},
		{"Network", testNetwork},
		{"Users", testUsers},
		{"Killed", testKilled},
		{"Kaniko", testKaniko},
		{"Submit", testSubmit},
		{"Stream", testStream},
		{"Ends", testEnds},
		{"Platforms", testPlatforms},
		{"Rights", testRights},
		{"Many", testMany},
		{"Faults", testFaults},
		{"Chart", testChart},
		{"Examples", testExamples},
		{"Debian", testDebian},
	}
	if os.Getenv("HAKO_TEST_SIZING") != "" {
		parts = []part{{"Sizing", testSizing}}
	}
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
}
