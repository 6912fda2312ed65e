// Package schematest holds JSON documents against JSON schemas in tests. It knows the few keywords that the schemas of
// this repository use, and refuses schemas that use others, so that no rule is overlooked.
package schematest

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
)

// schema is the part of JSON Schema that is known here.
type schema struct {
	Schema      string             `json:"$schema"`
	ID          string             `json:"$id"`
	Title       string             `json:"title"`
	Comment     string             `json:"$comment"`
	Deprecated  bool               `json:"deprecated"`
	Type        string             `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	Additional  *bool              `json:"additionalProperties"`
	Items       *schema            `json:"items"`
	MinItems    int                `json:"minItems"`
	Enumeration []string           `json:"enum"`
}

// Validate fails the test for everything in the document that the schema in the file does not allow.
func Validate(t testing.TB, file string, document []byte) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var s schema
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	var v any
	if err := json.Unmarshal(document, &v); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.check("$", v) {
		t.Error(e)
	}
}

func (s *schema) check(at string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		return append(s.is(at, "object"), s.object(at, v)...)
	case []any:
		errs := s.is(at, "array")
		if len(v) < s.MinItems {
			errs = append(errs, fmt.Sprintf("%s: %d items, at least %d are needed", at, len(v), s.MinItems))
		}
		for i, item := range v {
			if s.Items != nil {
				errs = append(errs, s.Items.check(fmt.Sprintf("%s[%d]", at, i), item)...)
			}
		}
		return errs
	case string:
		errs := s.is(at, "string")
		if s.Enumeration != nil && !slices.Contains(s.Enumeration, v) {
			errs = append(errs, fmt.Sprintf("%s: %q is not one of %q", at, v, s.Enumeration))
		}
		return errs
	case bool:
		return s.is(at, "boolean")
	case float64:
		if s.Type == "integer" && v == float64(int64(v)) {
			return nil
		}
		return s.is(at, "number")
	}
	return s.is(at, "null")
}

func (s *schema) is(at, kind string) []string {
	if s.Type != "" && s.Type != kind {
		return []string{fmt.Sprintf("%s: %s where %s should be", at, kind, s.Type)}
	}
	return nil
}

func (s *schema) object(at string, v map[string]any) []string {
	var errs []string
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			errs = append(errs, at+": "+name+" is missing")
		}
	}
	for name, value := range v {
		p, known := s.Properties[name]
		switch {
		case known:
			errs = append(errs, p.check(at+"."+name, value)...)
		case s.Additional != nil && !*s.Additional:
			errs = append(errs, at+": "+name+" is not allowed")
		}
	}
	return errs
}
