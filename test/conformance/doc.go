// Package conformance holds hako to what BuildKit makes of the same Dockerfile.
//
// A case is one file testdata/<name>.txtar: a small script that prepares the context, the Dockerfile,
// the files of the context and the images that the Dockerfile stands on. Its expectation testdata/<name>.json
// was made once by BuildKit and is committed. README.md describes both.
package conformance
