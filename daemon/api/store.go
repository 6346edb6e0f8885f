package api

import (
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/shoal-dev/shoal/api"
)

// maxHistory is how many changes are kept for watches that resume.
const maxHistory = 4096

// A store remembers what was shown and numbers its changes. Its methods may be
// called concurrently.
type store struct {
	mu      sync.Mutex
	first   uint64 // the first version this process handed out
	version uint64
	dropped uint64 // changes up to this version are no longer in history
	kinds   map[schema.GroupKind]map[name]entry
	history []change
	news    chan struct{} // closed at the next change
}

type name struct{ namespace, name string }

// An entry is an object and the version of its last change.
type entry struct {
	object  api.KubeObject
	version uint64
}

// A change is one object that came, changed or went.
type change struct {
	kind    schema.GroupKind
	event   watch.EventType
	version uint64
	object  api.KubeObject // after it; for a deletion the last state
	before  api.KubeObject // nil when it came
}

func newStore(first uint64) *store {
	return &store{
		first: first, version: first, dropped: first,
		kinds: map[schema.GroupKind]map[name]entry{}, news: make(chan struct{}),
	}
}

// set replaces all objects and notes what changed.
func (s *store) set(objects []api.KubeObject) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.version
	next := make(map[schema.GroupKind]map[name]entry, len(s.kinds))
	for _, object := range distinct(objects) {
		kind := object.GetObjectKind().GroupVersionKind().GroupKind()
		if next[kind] == nil {
			next[kind] = map[name]entry{}
		}
		n := name{object.GetNamespace(), object.GetName()}
		old, known := s.kinds[kind][n]
		switch {
		case !known:
			next[kind][n] = entry{object, s.note(kind, watch.Added, object, nil)}
		case old.object == object || equality.Semantic.DeepEqual(old.object, object):
			next[kind][n] = old
		case old.object.GetUID() != object.GetUID():
			// Another object under the same name, as with a bare pod that was
			// replaced.
			s.note(kind, watch.Deleted, old.object, old.object)
			next[kind][n] = entry{object, s.note(kind, watch.Added, object, nil)}
		default:
			next[kind][n] = entry{object, s.note(kind, watch.Modified, object, old.object)}
		}
	}
	for kind, entries := range s.kinds {
		for n, old := range entries {
			if _, there := next[kind][n]; !there {
				s.note(kind, watch.Deleted, old.object, old.object)
			}
		}
	}
	s.kinds = next
	if surplus := len(s.history) - maxHistory; surplus > 0 {
		s.dropped = s.history[surplus-1].version
		s.history = slices.Clone(s.history[surplus:])
	}
	if s.version != was {
		close(s.news)
		s.news = make(chan struct{})
	}
}

func (s *store) note(kind schema.GroupKind, event watch.EventType, object, before api.KubeObject) uint64 {
	s.version++
	s.history = append(s.history, change{kind, event, s.version, object, before})
	return s.version
}

// list returns the objects of a kind that match, sorted by namespace and name,
// and the version of the whole.
func (s *store) list(kind schema.GroupKind, match func(api.KubeObject) bool) ([]entry, uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []entry
	for _, e := range s.kinds[kind] {
		if match(e.object) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b entry) int {
		if c := strings.Compare(a.object.GetNamespace(), b.object.GetNamespace()); c != 0 {
			return c
		}
		return strings.Compare(a.object.GetName(), b.object.GetName())
	})
	return out, s.version
}

func (s *store) get(kind schema.GroupKind, namespace, n string) (entry, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, found := s.kinds[kind][name{namespace, n}]
	return e, found
}

// since returns the changes of a kind after a version, the version up to which
// they reach, and a channel that closes at the next change of anything. ok is
// false when the version was not handed out by this process or lies too far
// back.
func (s *store) since(kind schema.GroupKind, version uint64) (changes []change, upTo uint64, news <-chan struct{}, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version < s.first || version < s.dropped || version > s.version {
		return nil, 0, nil, false
	}
	i, _ := slices.BinarySearchFunc(s.history, version+1, func(c change, v uint64) int {
		return int(int64(c.version) - int64(v)) // versions of one process differ by far less
	})
	for _, c := range s.history[i:] {
		if c.kind == kind {
			changes = append(changes, c)
		}
	}
	return changes, s.version, s.news, true
}

// distinct returns the objects without those whose name another one has: while
// a pod that was replaced under its own name still ends, kubectl sees the new
// one. The order is that of the input.
func distinct(objects []api.KubeObject) []api.KubeObject {
	type key struct {
		kind schema.GroupKind
		name name
	}
	place := make(map[key]int, len(objects))
	out := make([]api.KubeObject, 0, len(objects))
	for _, object := range objects {
		k := key{object.GetObjectKind().GroupVersionKind().GroupKind(), name{object.GetNamespace(), object.GetName()}}
		i, taken := place[k]
		switch {
		case !taken:
			place[k] = len(out)
			out = append(out, object)
		case out[i].GetDeletionTimestamp() != nil && object.GetDeletionTimestamp() == nil:
			out[i] = object
		}
	}
	return out
}
