package manifest

import (
	"fmt"

	"github.com/shoal-dev/shoal/api"
)

// Assemble puts the files of one sync unit together. The snapshot holds every
// good object; whether it may come into force is for the caller to decide: a
// unit with a problem that is more than a warning must stay as it is.
//
// Problems are those of all files, sorted, and those that only show when the
// files are seen together: an object that is written twice.
func Assemble(unit string, commit api.Commit, files []Decoded) (api.Snapshot, []api.Invalid) {
	total := 0
	var problems []api.Invalid
	for _, f := range files {
		total += len(f.Objects)
		problems = append(problems, f.Problems...)
	}
	objects := make([]api.Object, 0, total)
	first := make(map[api.Key]api.Source, total)
	for _, f := range files {
		for _, object := range f.Objects {
			object.Source.Unit, object.Source.Commit = unit, commit
			key := object.Key()
			if other, twice := first[key]; twice {
				problems = append(problems, duplicate(key, object.Source, other))
				continue
			}
			first[key] = object.Source
			objects = append(objects, object)
		}
	}
	problems = append(problems, clashes(objects)...)
	objects, refused := admit(objects)
	problems = append(problems, refused...)
	mixConfiguration(objects)
	return api.NewSnapshot(map[string]api.Commit{unit: commit}, objects), api.SortInvalid(problems)
}

func duplicate(key api.Key, at, other api.Source) api.Invalid {
	return api.Invalid{
		File: at.File, Line: at.Line, Object: key.String(),
		Reason: fmt.Sprintf("%s is written twice; it is also at %s:%d", key, other.File, other.Line),
	}
}
