package scheduler

import (
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/shoal-dev/shoal/api"
)

// Objects are the objects that differ between two snapshots, sorted by key.
type Objects struct {
	Added   []ObjectChange `json:"added"`
	Changed []ObjectChange `json:"changed"`
	Removed []ObjectChange `json:"removed"`
}

// An ObjectChange is one object and where it is written: in the new snapshot, or
// in the old one when it is removed.
type ObjectChange struct {
	Object string `json:"object"` // "Deployment default/web"
	File   string `json:"file"`
	Line   int    `json:"line"`
}

func (o Objects) empty() bool { return len(o.Added)+len(o.Changed)+len(o.Removed) == 0 }

// NoObjects is what differs where that is not known.
func NoObjects() Objects { return compareObjects(api.Snapshot{}, api.Snapshot{}) }

// compareObjects lists what differs. Where something is written makes no
// difference.
func compareObjects(old, snapshot api.Snapshot) Objects {
	out := Objects{Added: []ObjectChange{}, Changed: []ObjectChange{}, Removed: []ObjectChange{}}
	change := func(o api.Object) ObjectChange {
		return ObjectChange{Object: o.Key().String(), File: o.Source.File, Line: o.Source.Line}
	}
	for object := range snapshot.Objects() {
		switch before, known := old.Lookup(object.Key()); {
		case !known:
			out.Added = append(out.Added, change(object))
		case before.GVK != object.GVK || !equality.Semantic.DeepEqual(before.Value, object.Value):
			out.Changed = append(out.Changed, change(object))
		}
	}
	for object := range old.Objects() {
		if _, still := snapshot.Lookup(object.Key()); !still {
			out.Removed = append(out.Removed, change(object))
		}
	}
	return out
}
