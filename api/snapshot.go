package api

import (
	"cmp"
	"iter"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Commit is the full hexadecimal hash of a Git commit.
type Commit string

// Short returns the first seven characters, as git prints them.
func (c Commit) Short() string {
	if len(c) > 7 {
		return string(c[:7])
	}
	return string(c)
}

// Source says where in Git an object is written.
type Source struct {
	Unit   string `json:"unit"` // sync unit, see Snapshot.Units
	Commit Commit `json:"commit"`
	File   string `json:"file"` // slash-separated, relative to the repository's root
	Line   int    `json:"line"` // 1-based line of the object's first key
}

// String returns "apps/web.yaml:12 at 3f2a9c1".
func (s Source) String() string {
	out := s.File
	if s.Line > 0 {
		out += ":" + strconv.Itoa(s.Line)
	}
	if s.Commit != "" {
		out += " at " + s.Commit.Short()
	}
	return out
}

// KubeObject is any typed object of k8s.io/api.
type KubeObject interface {
	metav1.Object
	runtime.Object
}

// Key names an object within a fleet.
type Key struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"` // "" for kinds without a namespace
	Name      string `json:"name"`
}

// String returns "Deployment default/web", the way users name things.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Compare orders keys by group, kind, namespace and name.
func (k Key) Compare(other Key) int {
	return cmp.Or(
		strings.Compare(k.Group, other.Group),
		strings.Compare(k.Kind, other.Kind),
		strings.Compare(k.Namespace, other.Namespace),
		strings.Compare(k.Name, other.Name),
	)
}

// Object is one object of the desired state: decoded strictly, defaulted and
// validated, with the place where it is written.
type Object struct {
	GVK    schema.GroupVersionKind
	Source Source
	// Value is a pointer to a k8s.io/api struct with its TypeMeta set. It is
	// shared by all readers: never write to it.
	Value KubeObject
	// Revision is the hash of the pod template as its author wrote it, before
	// defaulting, in a versioned canonical form; "" for kinds without a
	// template. It does not change when the daemon is upgraded, nor when
	// replicas or other fields outside the template change. For a bare Pod it
	// covers the pod's labels, annotations and spec. Where RollsOnConfig says
	// so, it covers what the template's ConfigMaps and Secrets hold, too.
	Revision string
}

// Key returns the object's name within the fleet.
func (o Object) Key() Key {
	return Key{
		Group:     o.GVK.Group,
		Kind:      o.GVK.Kind,
		Namespace: o.Value.GetNamespace(),
		Name:      o.Value.GetName(),
	}
}

// Snapshot is the desired state: what Git says, verified, rendered, defaulted
// and validated. It is immutable. The zero Snapshot means "not known yet".
type Snapshot struct {
	// Units maps the name of every sync unit to the commit its objects come
	// from. A nil map means that nothing is known yet.
	Units map[string]Commit

	objects []Object // sorted by key
}

// NewSnapshot returns a snapshot of objects, whose keys must differ. It takes
// the slice over and sorts it. A nil units map is stored as an empty one:
// whoever calls this knows the desired state, even when it is empty.
func NewSnapshot(units map[string]Commit, objects []Object) Snapshot {
	if units == nil {
		units = map[string]Commit{}
	}
	slices.SortFunc(objects, func(a, b Object) int { return a.Key().Compare(b.Key()) })
	return Snapshot{Units: units, objects: objects}
}

// Known reports whether the desired state has been read. While it has not,
// nothing may be removed.
func (s Snapshot) Known() bool { return s.Units != nil }

// Len returns the number of objects.
func (s Snapshot) Len() int { return len(s.objects) }

// Objects yields every object, sorted by key.
func (s Snapshot) Objects() iter.Seq[Object] { return slices.Values(s.objects) }

// Lookup returns the object with this key. Keys hold no version: a kind is
// decoded into the one version this program serves.
func (s Snapshot) Lookup(key Key) (Object, bool) {
	i, found := slices.BinarySearchFunc(s.objects, key, func(o Object, k Key) int { return o.Key().Compare(k) })
	if !found {
		return Object{}, false
	}
	return s.objects[i], true
}

// Of yields every object of one type, sorted by key, with where it is written:
//
//	for deployment, object := range api.Of[*appsv1.Deployment](snapshot) { ... }
func Of[T KubeObject](s Snapshot) iter.Seq2[T, Object] {
	return func(yield func(T, Object) bool) {
		for _, o := range s.objects {
			value, ok := o.Value.(T)
			if ok && !yield(value, o) {
				return
			}
		}
	}
}

// Get returns the object of type T with this namespace and name.
func Get[T KubeObject](s Snapshot, group, kind, namespace, name string) (T, bool) {
	var zero T
	object, found := s.Lookup(Key{Group: group, Kind: kind, Namespace: namespace, Name: name})
	if !found {
		return zero, false
	}
	value, ok := object.Value.(T)
	return value, ok
}
