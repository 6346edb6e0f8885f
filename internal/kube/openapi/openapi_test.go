package openapi

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Every kind must be found the way "kubectl explain" looks for it: by the
// operation of its list path, then by the extension of its schema; and every
// reference must lead somewhere.
func TestDocument(t *testing.T) {
	for _, gv := range Versions() {
		t.Run(gv.String(), func(t *testing.T) {
			data, err := Document(gv)
			if err != nil {
				t.Fatal(err)
			}
			var document struct {
				Paths      map[string]map[string]map[string]any
				Components struct {
					Schemas map[string]map[string]any
				}
			}
			if err := json.Unmarshal(data, &document); err != nil {
				t.Fatal(err)
			}
			for _, k := range kindsOf(gv) {
				get := document.Paths[listPath(k)]["get"]
				if got := get[gvkExtension].(map[string]any)["kind"]; got != k.GroupVersionKind.Kind {
					t.Errorf("%s: operation names kind %v, want %s", listPath(k), got, k.GroupVersionKind.Kind)
				}
			}
			for _, part := range strings.Split(string(data), `"$ref":"#/components/schemas/`)[1:] {
				name, _, _ := strings.Cut(part, `"`)
				if document.Components.Schemas[name] == nil {
					t.Fatalf("%s refers to %s, which is not there", gv, name)
				}
			}
		})
	}
}

func TestDocumentOfUnknownVersion(t *testing.T) {
	if _, err := Document(schema.GroupVersion{Group: "apps", Version: "v1beta1"}); err == nil {
		t.Error("got a document of a version that is not served")
	}
}
