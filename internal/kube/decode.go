package kube

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"

	"github.com/shoal-dev/shoal/api"
)

// FieldError is something wrong with one field of an object as it is written.
type FieldError struct {
	Field  string // "spec.template.spec.containers[0].image"; "" for the object as a whole
	Reason string
}

// Decode turns JSON into the typed object of gvk, strictly: every unknown,
// repeated and wrongly typed field is reported. Letter case counts, as in an
// API server. Nothing is defaulted or validated.
//
// The object is nil when a field has the wrong type; unknown and repeated
// fields leave it usable, so that it can be validated and all its mistakes
// reported at once.
func Decode(gvk schema.GroupVersionKind, data []byte) (api.KubeObject, []FieldError) {
	if _, known := Lookup(gvk); !known {
		return nil, []FieldError{{Reason: fmt.Sprintf("kind %s of %s is not known", gvk.Kind, gvk.GroupVersion())}}
	}
	empty, err := Scheme().New(gvk)
	if err != nil {
		return nil, []FieldError{{Reason: err.Error()}}
	}
	object, ok := empty.(api.KubeObject)
	if !ok {
		return nil, []FieldError{{Reason: fmt.Sprintf("%s has no metadata", gvk.Kind)}}
	}
	strict, err := kjson.UnmarshalStrict(data, object)
	if err != nil {
		return nil, typeErrors(data, reflect.TypeOf(object).Elem(), err)
	}
	var problems []FieldError
	for _, e := range strict {
		problems = append(problems, strictError(e))
	}
	object.GetObjectKind().SetGroupVersionKind(gvk)
	return object, problems
}

// strictError turns `unknown field "spec.replicass"` into a field and a reason.
func strictError(err error) FieldError {
	var located kjson.FieldError
	if !errors.As(err, &located) {
		return FieldError{Reason: err.Error()}
	}
	reason := "is written twice"
	if strings.HasPrefix(err.Error(), "unknown field") {
		reason = "unknown field"
	}
	return FieldError{Field: located.FieldPath(), Reason: reason}
}
