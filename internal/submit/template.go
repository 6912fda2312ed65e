package submit

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"hako/internal/diag"
)

// A strategic merge, as Kubernetes' API conventions have it: objects are merged by key, null removes a key, and a list whose field
// says so is merged by the key of its elements; "$patch: delete" or "replace" says otherwise. The fields' tags say how
// (patchStrategy, patchMergeKey). Kubernetes' own package would bring OpenAPI's schemas with it, which nothing here needs.

const templateHint = "Give a Pod, or a PodTemplate, of which only what is to be changed needs to be there; the container is called " + Container + "."

// mergeTemplate merges the user's template onto the pod.
func mergeTemplate(t *corev1.PodTemplateSpec, text []byte) (*corev1.PodTemplateSpec, error) {
	bad := func(err error) error {
		return &diag.Error{What: "--pod-template", Cause: err, Hint: templateHint}
	}
	var patch map[string]any
	if err := yaml.Unmarshal(text, &patch); err != nil {
		return nil, bad(err)
	}
	if kind, _ := patch["kind"].(string); kind == "PodTemplate" {
		inner, ok := patch["template"].(map[string]any)
		if !ok {
			return nil, bad(fmt.Errorf("the PodTemplate has no template"))
		}
		patch = inner
	} else if kind != "" && kind != "Pod" {
		return nil, bad(fmt.Errorf("%s is neither a Pod nor a PodTemplate", kind))
	}
	delete(patch, "kind")
	delete(patch, "apiVersion")
	delete(patch, "status")
	if meta, ok := patch["metadata"].(map[string]any); ok {
		delete(meta, "name") // the Job controller names pods
		delete(meta, "namespace")
	}
	data, err := json.Marshal(t)
	if err != nil {
		return nil, bad(err)
	}
	var base map[string]any
	if err := json.Unmarshal(data, &base); err != nil {
		return nil, bad(err)
	}
	merged, err := mergeObject(base, patch, reflect.TypeFor[corev1.PodTemplateSpec]())
	if err != nil {
		return nil, bad(err)
	}
	if data, err = json.Marshal(merged); err != nil {
		return nil, bad(err)
	}
	out := &corev1.PodTemplateSpec{}
	if err := yaml.UnmarshalStrict(data, out); err != nil {
		return nil, bad(err)
	}
	return out, nil
}

// directive is the key that says how to merge.
const directive = "$patch"

// mergeObject merges patch onto base; t is the type of both.
func mergeObject(base, patch map[string]any, t reflect.Type) (map[string]any, error) {
	if patch[directive] == "replace" {
		delete(patch, directive)
		return patch, nil
	}
	for key, value := range patch {
		field, merge, of := fieldOf(t, key)
		switch v := value.(type) {
		case nil:
			delete(base, key)
		case map[string]any:
			below, _ := base[key].(map[string]any)
			if below == nil {
				below = map[string]any{}
			}
			out, err := mergeObject(below, v, field)
			if err != nil {
				return nil, err
			}
			base[key] = out
		case []any:
			below, _ := base[key].([]any)
			if !merge {
				below = nil
			}
			out, err := mergeList(below, v, listOf{of, field})
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			base[key] = out
		default:
			base[key] = value
		}
	}
	return base, nil
}

// listOf says how a list is merged: its elements are of a type, and told apart by a key; without one, all are kept.
type listOf struct {
	key     string
	element reflect.Type
}

func mergeList(base, patch []any, o listOf) ([]any, error) {
	out := append([]any{}, base...)
	for _, p := range patch {
		object, ok := p.(map[string]any)
		if !ok || o.key == "" {
			out = append(out, p)
			continue
		}
		id, ok := object[o.key]
		if !ok {
			return nil, fmt.Errorf("an element has no %s", o.key)
		}
		at := -1
		for i, b := range out {
			if m, ok := b.(map[string]any); ok && m[o.key] == id {
				at = i
			}
		}
		switch {
		case object[directive] == "delete" && at >= 0:
			out = append(out[:at], out[at+1:]...)
		case object[directive] == "delete":
		case at < 0:
			out = append(out, p)
		default:
			merged, err := mergeObject(out[at].(map[string]any), object, o.element)
			if err != nil {
				return nil, err
			}
			out[at] = merged
		}
	}
	return out, nil
}

// fieldOf is the type of a field by its JSON name, that of an element if it is a list; whether lists are merged; and the key of
// their elements. It is nothing for what has no such field.
func fieldOf(t reflect.Type, key string) (field reflect.Type, merge bool, mergeKey string) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, false, ""
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && f.Anonymous {
			if field, merge, mergeKey = fieldOf(f.Type, key); field != nil {
				return field, merge, mergeKey
			}
		}
		if name != key {
			continue
		}
		of := f.Type
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
			of = of.Elem()
		}
		return of, strings.Contains(f.Tag.Get("patchStrategy"), "merge"), f.Tag.Get("patchMergeKey")
	}
	return nil, false, ""
}
