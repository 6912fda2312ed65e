package privilege

import "testing"

// TestPrivilege runs the executor image at every level of privilege. Its parts share one registry and one executor
// image; they run one after the other, because they measure memory and look for stray files.
//
//	go test ./test/privilege -short                      # the small base only: seconds for each level
//	go test ./test/privilege -run TestPrivilege/Debian   # the main job
func TestPrivilege(t *testing.T) {
	f := newFixture(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"Small", testSmall},
		{"Contexts", testContexts},
		{"Mounts", testMounts},
		{"Git", testGit}, {"Bucket", testBucket},
		{"ExitCode", testExitCode},
		{"Stop", testStop},
		{"Credentials", testCredentials},
		{"Confinement", testConfinement},
		{"Memory", testMemory},
		{"Debian", testDebian},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
}
