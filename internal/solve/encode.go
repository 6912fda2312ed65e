package solve

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"hako/internal/plan"
)

// encoder writes a value as text that is the same for equal values only, whatever the process or machine: the names of
// fields and their values, each with a length or a mark of its end. Fields that are zero are left out, so that a field that
// a later version adds changes nothing where it is not used.
// It works by reflection: no field can be forgotten.
type encoder struct {
	strings.Builder
	// name stands for what is more than its fields: stages, images, times; ok is false for everything else.
	name func(v any) (text string, ok bool)
}

func (e *encoder) value(v reflect.Value) {
	if v.CanInterface() {
		if text, ok := e.name(v.Interface()); ok {
			fmt.Fprintf(e, "%d:%s", len(text), text)
			return
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			e.WriteString("nil;")
			return
		}
		e.WriteString(v.Elem().Type().Name())
		e.value(v.Elem())
	case reflect.Struct:
		e.fields(v)
	case reflect.Slice, reflect.Array:
		fmt.Fprintf(e, "[%d:", v.Len())
		for i := range v.Len() {
			e.value(v.Index(i))
		}
	case reflect.Map:
		e.entries(v)
	case reflect.String:
		fmt.Fprintf(e, "%d:%s", v.Len(), v.String()) // as it is: a String method may hide something
	default:
		fmt.Fprintf(e, "%v;", v)
	}
}

func (e *encoder) fields(v reflect.Value) {
	e.WriteByte('{')
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			e.WriteString(v.Type().Field(i).Name + "=")
			e.value(v.Field(i))
		}
	}
	e.WriteByte('}')
}

func (e *encoder) entries(v reflect.Value) {
	var parts []string
	for _, k := range v.MapKeys() {
		part := &encoder{name: e.name}
		part.value(k)
		part.value(v.MapIndex(k))
		parts = append(parts, part.String())
	}
	slices.Sort(parts)
	fmt.Fprintf(e, "(%d:%s", len(parts), strings.Join(parts, ""))
}

// standing names what a key has apart from the operation: stages and images by what identifies them there, and times.
func standing(inputs func(plan.From) string) func(any) (string, bool) {
	return func(v any) (string, bool) {
		switch x := v.(type) {
		case plan.From:
			return inputs(x), true
		case *plan.Stage, *plan.ImageRef:
			return "", true // never met outside of a From
		case *plan.Source:
			return "", true // what is in it counts, see reads
		case time.Time:
			return fmt.Sprint(x.UnixNano()), true
		}
		return "", false
	}
}
