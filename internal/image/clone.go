package image

import (
	"maps"
	"slices"
)

// Clone returns a copy of c that shares nothing with it that a builder changes.
func Clone(c *Config) Config {
	d := *c
	d.OSFeatures = slices.Clone(c.OSFeatures)
	d.History = slices.Clone(c.History)
	d.RootFS.DiffIDs = slices.Clone(c.RootFS.DiffIDs)
	d.Config.Env = slices.Clone(c.Config.Env)
	d.Config.Cmd = slices.Clone(c.Config.Cmd)
	d.Config.Entrypoint = slices.Clone(c.Config.Entrypoint)
	d.Config.OnBuild = slices.Clone(c.Config.OnBuild)
	d.Config.Shell = slices.Clone(c.Config.Shell)
	d.Config.ExposedPorts = maps.Clone(c.Config.ExposedPorts)
	d.Config.Volumes = maps.Clone(c.Config.Volumes)
	d.Config.Labels = maps.Clone(c.Config.Labels)
	if h := c.Config.Healthcheck; h != nil {
		copied := *h
		copied.Test = slices.Clone(h.Test)
		d.Config.Healthcheck = &copied
	}
	return d
}
