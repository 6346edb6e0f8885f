package openapi

import (
	"encoding/json"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/shoal-dev/shoal/internal/kube"
)

// gvkExtension ties schemas and operations to kinds.
const gvkExtension = "x-kubernetes-group-version-kind"

// Versions returns the group versions for which there is a document, in the
// order of [kube.Kinds].
func Versions() []schema.GroupVersion {
	var out []schema.GroupVersion
	for _, k := range kube.Kinds() {
		if len(out) == 0 || out[len(out)-1] != k.GroupVersion() {
			out = append(out, k.GroupVersion())
		}
	}
	return out
}

// Document returns the OpenAPI v3 document of a group version as JSON: the
// schemas of its kinds with all they refer to, and for each kind the path under
// which it is listed. It takes about 0.2 s; cache the result, compressed.
func Document(gv schema.GroupVersion) ([]byte, error) {
	kinds := kindsOf(gv)
	if len(kinds) == 0 {
		return nil, fmt.Errorf("openapi: %s is not served", gv)
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		object, err := kube.Scheme().New(k.GroupVersionKind)
		if err != nil {
			return nil, fmt.Errorf("openapi: %w", err)
		}
		names[i] = util.GetCanonicalTypeName(object)
	}
	config := &common.OpenAPIV3Config{GetDefinitions: definitions}
	schemas, err := builder3.BuildOpenAPIDefinitionsForResources(config, names...)
	if err != nil {
		return nil, fmt.Errorf("openapi: %s: %w", gv, err)
	}
	document := spec3.OpenAPI{
		Version:    builder3.OpenAPIVersion + ".0",
		Info:       &spec.Info{InfoProps: spec.InfoProps{Title: "Shoal", Version: gv.String()}},
		Paths:      &spec3.Paths{Paths: map[string]*spec3.Path{}},
		Components: &spec3.Components{Schemas: schemas},
	}
	for i, k := range kinds {
		name := names[i][strings.LastIndex(names[i], "/")+1:]
		schemas[name].AddExtension(gvkExtension, []any{gvkMap(k)})
		document.Paths.Paths[listPath(k)] = listing(k)
		document.Paths.Paths[listPath(k)+"/{name}"] = patching(k)
	}
	return json.Marshal(&document)
}

func kindsOf(gv schema.GroupVersion) []kube.Kind {
	var out []kube.Kind
	for _, k := range kube.Kinds() {
		if k.GroupVersion() == gv {
			out = append(out, k)
		}
	}
	return out
}

func listPath(k kube.Kind) string {
	path := "/apis/" + k.GroupVersion().String()
	if k.Group == "" {
		path = "/api/" + k.Version
	}
	if k.Namespaced {
		path += "/namespaces/{namespace}"
	}
	return path + "/" + k.Plural
}

func listing(k kube.Kind) *spec3.Path {
	get := &spec3.Operation{OperationProps: spec3.OperationProps{
		Description: "list objects of kind " + k.GroupVersionKind.Kind,
		OperationId: "list" + k.GroupVersionKind.Kind,
		Responses:   &spec3.Responses{},
	}}
	get.AddExtension(gvkExtension, gvkMap(k))
	return &spec3.Path{PathProps: spec3.PathProps{Get: get}}
}

// patching describes the change of one object, which is refused with the place
// in Git where it belongs. kubectl sends it only to a server that says it
// validates fields itself, and would otherwise fail before it could be told.
func patching(k kube.Kind) *spec3.Path {
	patch := &spec3.Operation{OperationProps: spec3.OperationProps{
		Description: "refused: objects of kind " + k.GroupVersionKind.Kind + " are changed in Git",
		OperationId: "patch" + k.GroupVersionKind.Kind,
		Parameters: []*spec3.Parameter{{ParameterProps: spec3.ParameterProps{
			Name: "fieldValidation", In: "query", Schema: spec.StringProperty(),
		}}},
		Responses: &spec3.Responses{},
	}}
	patch.AddExtension(gvkExtension, gvkMap(k))
	return &spec3.Path{PathProps: spec3.PathProps{Patch: patch}}
}

func gvkMap(k kube.Kind) map[string]any {
	return map[string]any{"group": k.Group, "version": k.Version, "kind": k.GroupVersionKind.Kind}
}
