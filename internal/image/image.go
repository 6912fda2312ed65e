// Package image holds the configuration of an image as Docker and OCI define it, and assembles
// configuration, layers and history into a manifest.
package image

import (
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Config is an image configuration: the OCI fields and Docker's additions (HEALTHCHECK, ONBUILD, SHELL).
type Config = dockerspec.DockerOCIImage
