// Package dropin holds the tests that run hako's images as people run kaniko's: with the command lines of its documentation,
// in default and in restricted containers.
//
// They need root, a Docker engine, Debian's docker-registry and busybox-static. Without them they skip and say what is
// missing; with HAKO_CI set they fail instead.
package dropin
