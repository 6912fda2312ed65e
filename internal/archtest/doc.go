// Package archtest holds the rules of this repository as ordinary tests: who may import whom, how long things may be,
// what may be linked. It has no code of its own.
package archtest
