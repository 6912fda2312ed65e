package conformance

import "context"

// LoadShell compiles the shell of the base image in dir, which exists, and lists it with the links to it.
func LoadShell(ctx context.Context, dir string) ([]ShellFile, error) { return loadShell(ctx, dir) }
