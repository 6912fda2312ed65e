// This file makes the compiler accept functions without a body, see fork.go.
