package manifest

import (
	"fmt"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

// Decoded is what one file holds. It depends on the file's path and bytes
// alone, so a caller may keep it as long as these two stay the same.
type Decoded struct {
	Path     string
	Objects  []api.Object  // in the order of the file; their Source lacks unit and commit
	Problems []api.Invalid // sorted
}

// Decode reads one file of plain manifests: YAML or JSON, one or more
// documents, Lists included. It reports every mistake of the file.
func Decode(f File) Decoded {
	d := decoder{file: f.Path}
	if problem, bad := unreadable(f); bad {
		d.problems = append(d.problems, problem)
		return d.result()
	}
	documents, problems := split(f)
	d.problems = append(d.problems, problems...)
	for _, doc := range documents {
		if doc.firstLine() > 0 {
			d.document(doc)
		}
	}
	return d.result()
}

// decoder collects what a file holds.
type decoder struct {
	file     string
	objects  []api.Object
	problems []api.Invalid
}

func (d *decoder) result() Decoded {
	return Decoded{Path: d.file, Objects: d.objects, Problems: api.SortInvalid(d.problems)}
}

// document decodes one document. A panic in Kubernetes' own rules, which were
// not written for hostile input, is a problem of the document, not of the fleet.
func (d *decoder) document(doc document) {
	before := len(d.objects)
	defer func() {
		if cause := recover(); cause != nil {
			d.objects = d.objects[:before]
			d.problems = append(d.problems, api.Invalid{
				File: d.file, Line: doc.firstLine(),
				Reason: fmt.Sprintf("the document cannot be checked: %v", cause),
			})
		}
	}()
	p, problems, ok := parse(d.file, doc)
	d.problems = append(d.problems, problems...)
	if !ok || p.value == nil {
		return
	}
	lines := &positions{document: doc}
	object, ok := p.value.(map[string]any)
	if !ok {
		d.add(lines, "", "", finding{reason: "not a Kubernetes manifest: a document must be a mapping with apiVersion, kind and metadata"})
		return
	}
	d.envelope(entry{lines: lines, object: object, json: p.json, depth: 0})
}

// entry is one object of a document: the document itself or an item of a list.
type entry struct {
	lines  *positions
	prefix string // path of the item within the document: "items[3]"
	object map[string]any
	json   []byte // of object; nil: not yet encoded
	depth  int    // lists within lists
}

func (d *decoder) add(lines *positions, prefix, name string, f finding) {
	at := prefix + "." + f.field
	if f.field == "" {
		at = prefix
	}
	d.problems = append(d.problems, api.Invalid{
		File: d.file, Line: lines.line(strings.TrimPrefix(at, ".")), Object: name,
		Field: f.field, Reason: f.reason, Warning: f.warning,
	})
}

// envelope finds out what an object is, and opens lists.
func (d *decoder) envelope(e entry) {
	fail := func(field, format string, args ...any) {
		d.add(e.lines, e.prefix, "", finding{field: field, reason: fmt.Sprintf(format, args...)})
	}
	version, hasVersion := e.object["apiVersion"]
	kind, hasKind := e.object["kind"]
	switch {
	case e.object["sops"] != nil:
		fail("sops", "the file is encrypted with SOPS; decryption is planned, not served yet")
		return
	case !hasVersion && !hasKind:
		fail("", "not a Kubernetes manifest: it has neither apiVersion nor kind; point the sync path at a folder that holds manifests only")
		return
	case !hasKind:
		fail("", "kind is missing")
		return
	case !hasVersion:
		fail("", "apiVersion is missing%s", rightVersion(kind))
		return
	}
	versionText, ok1 := version.(string)
	kindText, ok2 := kind.(string)
	gv, err := schema.ParseGroupVersion(versionText)
	if !ok1 || !ok2 || err != nil || kindText == "" || gv.Version == "" {
		fail("apiVersion", "apiVersion and kind must be strings such as apps/v1 and Deployment")
		return
	}
	gvk := gv.WithKind(kindText)
	if itemKind, list := listOf(gvk); list {
		d.list(e, gvk, itemKind)
		return
	}
	if reason := refuseKind(gvk); reason != "" {
		fail("kind", "%s", reason)
		return
	}
	d.object(e, gvk)
}

func rightVersion(kind any) string {
	text, _ := kind.(string)
	for _, k := range kube.Named(text) {
		return fmt.Sprintf("; %s has apiVersion: %s", k.GroupVersionKind.Kind, k.GroupVersion())
	}
	return ""
}

// listOf reports whether a kind is a list, and of what: "" for v1 List, which
// may hold anything.
func listOf(gvk schema.GroupVersionKind) (item string, list bool) {
	if gvk == (schema.GroupVersionKind{Version: "v1", Kind: "List"}) {
		return "", true
	}
	item, found := strings.CutSuffix(gvk.Kind, "List")
	if !found {
		return "", false
	}
	_, known := kube.Lookup(gvk.GroupVersion().WithKind(item))
	return item, known
}

func itemPrefix(i int) string { return fmt.Sprintf("items[%d]", i) }

// list decodes every item of a list. Items of a typed list may leave out
// apiVersion and kind.
func (d *decoder) list(e entry, gvk schema.GroupVersionKind, itemKind string) {
	for key := range e.object {
		if key != "apiVersion" && key != "kind" && key != "metadata" && key != "items" {
			d.add(e.lines, e.prefix, gvk.Kind, finding{field: key, reason: "unknown field"})
		}
	}
	items, ok := e.object["items"].([]any)
	if !ok && e.object["items"] != nil || e.depth > 0 {
		d.add(e.lines, e.prefix, gvk.Kind, finding{field: "items", reason: "must be a list of objects that are not lists themselves"})
		return
	}
	for i, value := range items {
		item := entry{lines: e.lines, prefix: itemPrefix(i), depth: e.depth + 1}
		object, ok := value.(map[string]any)
		if !ok {
			d.add(e.lines, item.prefix, "", finding{reason: "must be an object with apiVersion, kind and metadata"})
			continue
		}
		item.object = object
		if itemKind != "" {
			if object["apiVersion"] == nil {
				object["apiVersion"] = gvk.GroupVersion().String()
			}
			if object["kind"] == nil {
				object["kind"] = itemKind
			}
		}
		d.envelope(item)
	}
}

// object decodes, checks and keeps one object of a known kind.
func (d *decoder) object(e entry, gvk schema.GroupVersionKind) {
	known, _ := kube.Lookup(gvk)
	data, err := e.encoded()
	if err != nil {
		d.add(e.lines, e.prefix, gvk.Kind, finding{reason: err.Error()})
		return
	}
	name := nameOf(e.object, known)
	value, problems := kube.Decode(gvk, data)
	for _, p := range problems {
		d.add(e.lines, e.prefix, name, finding{field: p.Field, reason: p.Reason})
	}
	if value == nil {
		return
	}
	refused := len(problems) > 0
	for _, f := range check(value, known) {
		d.add(e.lines, e.prefix, name, f)
		refused = refused || !f.warning
	}
	if refused {
		return
	}
	d.objects = append(d.objects, api.Object{
		GVK:      gvk,
		Source:   api.Source{File: d.file, Line: e.lines.first(e.prefix)},
		Value:    value,
		Revision: revision(gvk.Kind, e.object),
	})
}

// check completes an object in place and returns what is wrong with it.
func check(value api.KubeObject, kind kube.Kind) (found []finding) {
	normalize(value, kind)
	scope := scopeOf(kind.Group, kind.GroupVersionKind.Kind)
	if scope.Verdict == Served {
		found = checkScope(value)
	} else {
		found = append(found, finding{
			field: "kind", warning: true,
			reason: fmt.Sprintf("%s is planned, not served yet: %s", kind.GroupVersionKind.Kind, scope.Reason),
		})
	}
	found = append(found, checkMeta(value)...)
	found = append(found, checkRollOnConfig(value, kind.GroupVersionKind.Kind)...)
	kube.Default(value)
	for _, e := range kube.Validate(value) {
		if value.GetName() == "" && e.Field == "metadata.name" {
			continue // checkMeta says it in the words of Git
		}
		found = append(found, finding{field: e.Field, reason: e.ErrorBody()})
	}
	return found
}

// normalize sets the namespace as kubectl does and clears what belongs to an
// API server: exported manifests carry it, and it means nothing here.
func normalize(value api.KubeObject, kind kube.Kind) {
	switch {
	case !kind.Namespaced:
		value.SetNamespace("")
	case value.GetNamespace() == "":
		value.SetNamespace(metav1.NamespaceDefault)
	}
	value.SetUID("")
	value.SetResourceVersion("")
	value.SetGeneration(0)
	value.SetSelfLink("")
	value.SetCreationTimestamp(metav1.Time{})
	value.SetManagedFields(nil)
	if status := reflect.ValueOf(value).Elem().FieldByName("Status"); status.IsValid() {
		status.SetZero()
	}
}

func checkMeta(value api.KubeObject) (found []finding) {
	switch {
	case value.GetGenerateName() != "" && value.GetName() == "":
		found = append(found, finding{field: "metadata.generateName", reason: "an object in Git must be the same one in every commit: give it a name"})
	case value.GetName() == "":
		found = append(found, finding{field: "metadata.name", reason: "is missing"})
	}
	if len(value.GetOwnerReferences()) > 0 {
		found = append(found, finding{field: "metadata.ownerReferences", warning: true, reason: "has no effect: an object is owned by its file in Git"})
	}
	if len(value.GetFinalizers()) > 0 {
		found = append(found, finding{field: "metadata.finalizers", warning: true, reason: "has no effect: an object goes when it is removed from Git"})
	}
	if value.GetDeletionTimestamp() != nil {
		found = append(found, finding{field: "metadata.deletionTimestamp", reason: "remove the object from Git to delete it"})
	}
	return found
}
