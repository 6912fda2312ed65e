// Package privilege holds the tests that run the executor image in real containers, at every level of privilege that
// clusters and machines give a build, and compare what it made with what Docker makes of the same Dockerfile.
//
// They need root, a Docker engine, Debian's docker-registry, mmdebstrap and busybox-static, and apt's archive.
// Without them they skip and say what is missing; with HAKO_CI set they fail instead.
package privilege
