package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"hako/internal/attest"
	"hako/internal/build"
	"hako/internal/diag"
)

// The words of --attest, --provenance and --sbom are buildx's; what they mean is BuildKit's. BuildKit's own build arguments,
// BUILDKIT_ATTEST_PROVENANCE and BUILDKIT_ATTEST_SBOM, count where no flag says anything.

// attestSpec is one wish for attestations.
type attestSpec struct {
	by      string // the flag or build argument, as given
	kind    string // "provenance" or "sbom"
	options map[string]string
	off     bool
}

const attestHint = "Write --provenance=min, --provenance=max, --sbom=true, or --attest type=provenance,mode=max."

// attestAndSign reads what is to be said of the image, and with which keys it and what is cached are signed.
func (c *command) attestAndSign(vs *values, req *build.Request) (err error) {
	if req.Attestations, err = c.attestations(vs, req.BuildArgs); err != nil {
		return err
	}
	if req.Cache.Key, err = c.cacheKey(vs); err != nil {
		return err
	}
	req.Signing, err = c.signing(vs)
	return err
}

// attestations reads everything that asks for attestations.
func (c *command) attestations(vs *values, args map[string]string) (build.Attestations, error) {
	var out build.Attestations
	specs, err := attestSpecs(vs, args)
	if err != nil {
		return out, err
	}
	for _, s := range specs {
		if s.off {
			continue
		}
		apply := s.provenance
		if s.kind == "sbom" {
			apply = s.sbom
		}
		if err := apply(&out); err != nil {
			return out, err
		}
		out.Version = c.env.Version
	}
	return out, nil
}

// attestSpecs are the wishes, one for each kind: flags win over build arguments. Two flags must not speak of one kind.
func attestSpecs(vs *values, args map[string]string) ([]attestSpec, error) {
	byKind := map[string]attestSpec{}
	for _, kind := range []string{"provenance", "sbom"} {
		name := "BUILDKIT_ATTEST_" + strings.ToUpper(kind)
		if text, ok := args[name]; ok {
			s, err := parseAttest("--build-arg "+name+"="+text, kind, text)
			if err != nil {
				return nil, err
			}
			byKind[kind] = s
		}
	}
	flagged := map[string]string{}
	var given []attestSpec
	for _, text := range vs.list("attest") {
		s, err := parseAttest("--attest "+text, "", text)
		if err != nil {
			return nil, err
		}
		given = append(given, s)
	}
	for _, kind := range []string{"provenance", "sbom"} {
		if len(vs.list(kind)) == 0 {
			continue
		}
		s, err := parseAttest("--"+kind+"="+vs.str(kind), kind, vs.str(kind))
		if err != nil {
			return nil, err
		}
		given = append(given, s)
	}
	for _, s := range given {
		if other, ok := flagged[s.kind]; ok {
			return nil, &diag.Error{What: fmt.Sprintf("%s and %s both say something about %s", other, s.by, s.kind), Hint: "Give one of them."}
		}
		flagged[s.kind] = s.by
		byKind[s.kind] = s
	}
	var out []attestSpec
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		out = append(out, byKind[kind])
	}
	return out, nil
}

// parseAttest reads "true", "false", "min", "max" and "KEY=VALUE,…"; without a kind, the type has to be among them.
func parseAttest(by, kind, text string) (attestSpec, error) {
	s := attestSpec{by: by, kind: kind, options: map[string]string{}}
	fail := func(format string, args ...any) (attestSpec, error) {
		return s, &diag.Error{What: by + ": " + fmt.Sprintf(format, args...), Hint: attestHint}
	}
	for i, field := range strings.Split(text, ",") {
		k, v, ok := strings.Cut(field, "=")
		k = strings.ToLower(strings.TrimSpace(k))
		on, err := strconv.ParseBool(k)
		switch {
		case field == "" && kind != "" && i == 0:
		case ok && s.options[k] != "":
			return fail("%s is given twice", k)
		case ok:
			s.options[k] = v
		case kind == "provenance" && (k == "min" || k == "max"):
			s.options["mode"] = k
		case kind != "" && err == nil:
			s.off = !on
		default:
			return fail("%q is not KEY=VALUE", field)
		}
	}
	if kind == "" {
		s.kind = s.options["type"]
		delete(s.options, "type")
	}
	if s.kind != "provenance" && s.kind != "sbom" {
		return fail("there is no attestation of type %q", s.kind)
	}
	if v, ok := s.options["disabled"]; ok {
		off, err := strconv.ParseBool(v)
		if err != nil {
			return fail("disabled=%s is not a bool", v)
		}
		s.off = off
		delete(s.options, "disabled")
	}
	return s, nil
}

func (s *attestSpec) fail(hint, format string, args ...any) error {
	return &diag.Error{What: s.by + ": " + fmt.Sprintf(format, args...), Hint: hint}
}

// provenance takes up a wish for provenance. As in BuildKit, it says all it can unless told otherwise.
func (s *attestSpec) provenance(out *build.Attestations) error {
	out.Provenance = attest.Max
	for _, k := range slices.Sorted(maps.Keys(s.options)) {
		v := s.options[k]
		var err error
		switch k {
		case "mode":
			switch v {
			case "min":
				out.Provenance = attest.Min
			case "max", "full", "":
			default:
				err = s.fail("Use mode=min or mode=max.", "there is no mode %q", v)
			}
		case "builder-id":
			out.BuilderID = v
		case "filename":
			out.ProvenanceFile = v
		case "reproducible":
			out.Reproducible, err = s.bool(k)
		case "inline-only":
			out.InlineOnly, err = s.bool(k)
		case "version":
			if v != "v1" {
				err = s.fail("Leave out version, or say version=v1.", "only version v1 of SLSA's provenance is written, not %q", v)
			}
		default:
			err = s.fail(attestHint, "there is no option %q", k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sbom takes up a wish for a list of contents.
func (s *attestSpec) sbom(out *build.Attestations) error {
	out.SBOM = true
	if _, ok := s.options["generator"]; ok {
		return s.fail("Leave out the generator: --sbom=true uses the scanner that is built in.", "scanners that come as images are not supported")
	}
	if len(s.options) > 0 {
		return s.fail(attestHint, "there is no option %q", slices.Min(slices.Collect(maps.Keys(s.options))))
	}
	return nil
}

func (s *attestSpec) bool(k string) (bool, error) {
	b, err := strconv.ParseBool(s.options[k])
	if err != nil {
		return false, s.fail("Use true or false.", "%s=%s is not a bool", k, s.options[k])
	}
	return b, nil
}
