package sentry

// threadFlags are what the Go runtime adds to clone(2) on this architecture.
const threadFlags = 0
