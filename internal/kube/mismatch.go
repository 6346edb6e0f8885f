package kube

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"sort"
	"strings"

	kjson "sigs.k8s.io/json"
)

// typeErrors finds every value in data that does not fit its Go type. The
// decoder itself stops at the first one and often does not say where it is;
// this walks the value and the type side by side, and finds unknown fields on
// the way. cause is what the decoder
// said, for the case that the walk finds nothing.
func typeErrors(data []byte, t reflect.Type, cause error) []FieldError {
	var value any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &value); err != nil {
		return []FieldError{{Reason: err.Error()}}
	}
	var m mismatches
	m.check("", t, value)
	if len(m.found) == m.unknown {
		return append(m.found, FieldError{Reason: strings.TrimPrefix(cause.Error(), "json: ")})
	}
	return m.found
}

type mismatches struct {
	found   []FieldError
	unknown int // of found: fields that fit no type because there is none
}

func (m *mismatches) add(path, format string, args ...any) {
	m.found = append(m.found, FieldError{Field: path, Reason: fmt.Sprintf(format, args...)})
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// check compares value, as JSON decodes into an any, with the Go type t.
func (m *mismatches) check(path string, t reflect.Type, value any) {
	if value == nil {
		return // null leaves the field as it is
	}
	if t.Kind() == reflect.Pointer {
		m.check(path, t.Elem(), value)
		return
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		m.checkUnmarshaler(path, t, value)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		m.checkStruct(path, t, value)
	case reflect.Map:
		m.checkMap(path, t, value)
	case reflect.Slice:
		m.checkSlice(path, t, value)
	default:
		m.checkScalar(path, t, value)
	}
}

// checkUnmarshaler tries types with a form of their own: Quantity, Time, IntOrString.
func (m *mismatches) checkUnmarshaler(path string, t reflect.Type, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		m.add(path, "%v", err)
		return
	}
	if err := json.Unmarshal(data, reflect.New(t).Interface()); err != nil {
		m.add(path, "%s is not a valid %s: %s", data, strings.ToLower(t.Name()), strings.TrimPrefix(err.Error(), "json: "))
	}
}

func (m *mismatches) checkStruct(path string, t reflect.Type, value any) {
	object, ok := value.(map[string]any)
	if !ok {
		m.add(path, "must be a mapping, is %s", describe(value))
		return
	}
	fields := jsonFields(t)
	for _, name := range sortedKeys(object) {
		if ft, known := fields[name]; known {
			m.check(join(path, name), ft, object[name])
		} else {
			m.add(join(path, name), "unknown field")
			m.unknown++
		}
	}
}

func (m *mismatches) checkMap(path string, t reflect.Type, value any) {
	object, ok := value.(map[string]any)
	if !ok {
		m.add(path, "must be a mapping, is %s", describe(value))
		return
	}
	for _, name := range sortedKeys(object) {
		m.check(path+"["+name+"]", t.Elem(), object[name])
	}
}

func (m *mismatches) checkSlice(path string, t reflect.Type, value any) {
	if t.Elem().Kind() == reflect.Uint8 {
		text, ok := value.(string)
		if !ok {
			m.add(path, "must be a base64 string, is %s", describe(value))
		} else if _, err := base64.StdEncoding.DecodeString(text); err != nil {
			m.add(path, "is not base64: %v", err)
		}
		return
	}
	list, ok := value.([]any)
	if !ok {
		m.add(path, "must be a list, is %s", describe(value))
		return
	}
	for i, item := range list {
		m.check(fmt.Sprintf("%s[%d]", path, i), t.Elem(), item)
	}
}

func (m *mismatches) checkScalar(path string, t reflect.Type, value any) {
	switch t.Kind() {
	case reflect.String:
		if _, ok := value.(string); !ok {
			m.add(path, "must be a string, is %s%s", describe(value), quoteHint(value))
		}
	case reflect.Bool:
		if _, ok := value.(bool); !ok {
			m.add(path, "must be true or false, is %s", describe(value))
		}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		n, ok := value.(int64)
		if !ok {
			m.add(path, "must be a whole number, is %s", describe(value))
		} else if t.Kind() == reflect.Int32 && int64(int32(n)) != n {
			m.add(path, "%d does not fit into 32 bits", n)
		}
	}
}

// jsonFields returns the types of the fields of a struct by their JSON names,
// those of inlined structs included.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name != "":
			fields[name] = f.Type
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			maps.Copy(fields, jsonFields(f.Type))
		}
	}
	return fields
}

func sortedKeys(object map[string]any) []string {
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// describe says what a value is, for a sentence.
func describe(value any) string {
	switch v := value.(type) {
	case string:
		if len(v) > 40 {
			v = v[:40] + "..."
		}
		return fmt.Sprintf("the string %q", v)
	case bool:
		return fmt.Sprintf("the boolean %t", v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []any:
		return "a list"
	default:
		return "a mapping"
	}
}

// quoteHint tells how to write a string that YAML takes for something else.
func quoteHint(value any) string {
	switch value.(type) {
	case bool, int64, float64:
		return "; put it in quotes"
	default:
		return ""
	}
}
