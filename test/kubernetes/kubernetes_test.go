package kubernetes

import "testing"

// TestKubernetes runs its parts one after the other on one cluster, with one registry and one set of images.
//
//	go test ./test/kubernetes -run TestKubernetes/Debian
func TestKubernetes(t *testing.T) {
	f := newFixture(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"Small", testSmall},
		{"Manifests", testManifests},
		{"Network", testNetwork},
		{"Users", testUsers},
		{"Kaniko", testKaniko},
		{"Submit", testSubmit},
		{"Stream", testStream},
		{"Ends", testEnds},
		{"Platforms", testPlatforms},
		{"Rights", testRights},
		{"Many", testMany},
		{"Chart", testChart},
		{"Examples", testExamples},
		{"Debian", testDebian},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
}
