package build

import (
	"path/filepath"
	"strings"

	"hako/internal/credential"
	"hako/internal/diag"
	"hako/internal/imagesource"
	"hako/internal/registry"
)

// registryOptions are how the request wants registries to be reached.
func (b *builder) registryOptions() (registry.Options, error) {
	r := b.req.Registry
	certificates := make([]string, 0, len(r.Certificates))
	for _, c := range r.Certificates {
		certificates = append(certificates, b.file(c.Value))
	}
	helpers, err := credential.Helpers(r.CredentialHelpers, b.env.Getenv)
	if err != nil {
		return registry.Options{}, err
	}
	o := registry.Options{
		AuthConfig: r.AuthConfig, AuthFiles: r.AuthFiles, Helpers: helpers, Programs: credential.Programs(b.env.Getenv),
		Insecure: r.Insecure, InsecurePull: r.InsecurePull, InsecureRegistries: r.InsecureRegistries,
		SkipTLSVerify: r.SkipTLSVerify, SkipTLSVerifyPull: r.SkipTLSVerifyPull, SkipTLSVerifyRegistries: r.SkipTLSVerifyRegistries,
		DockerConfigDirs: r.DockerConfigDirs, UserAgent: r.UserAgent, Transport: b.env.Transport, Events: b.env.Events, Patience: b.req.Cache.Patience,
		Certificates: certificates, ClientCertificates: map[string]registry.KeyPair{},
	}
	for _, c := range r.ClientCertificates {
		certificate, key, ok := strings.Cut(c.Value, ",")
		if !ok || certificate == "" || key == "" {
			return o, &diag.Error{
				What: "client certificate " + c.Key + "=" + c.Value + ": there are not two files",
				Hint: "Give --registry-client-cert as HOST=CERTIFICATE,KEY.",
			}
		}
		o.ClientCertificates[c.Key] = registry.KeyPair{Certificate: b.file(certificate), Key: b.file(key)}
	}
	return o, nil
}

// file is a path as the user gave it, relative to where hako was started.
func (b *builder) file(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.env.Cwd, path)
}

func (b *builder) mirrors() []imagesource.Mirror {
	var out []imagesource.Mirror
	for _, m := range b.req.Registry.Mirrors {
		out = append(out, imagesource.Mirror{Registry: m.Key, Place: m.Value})
	}
	return out
}
