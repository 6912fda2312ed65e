// Package reproducible proves that a Dockerfile whose steps are deterministic gives the same digest wherever and whenever
// it is built, with SOURCE_DATE_EPOCH and --rewrite-timestamp.
package reproducible
