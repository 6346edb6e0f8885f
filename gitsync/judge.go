package gitsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/manifest"
	"github.com/shoal-dev/shoal/gitsync/render"
)

// forest is a commit, or a folder of the file system that is checked like one.
type forest interface {
	render.Tree
	// list returns the files below a folder and what should not be there; found
	// is false when there is no such folder.
	list(folder string) (files []file, problems []api.Invalid, found bool, err error)
	// broken returns why the files could not be read completely.
	broken() error
}

func (t *tree) broken() error { return t.err }

func (t *tree) list(folder string) ([]file, []api.Invalid, bool, error) {
	e, found := t.lookup(folder)
	if !found || e.mode != modeFolder {
		if found && e.mode == modeSymlink {
			return nil, []api.Invalid{{File: folder, Reason: "the sync path is a symbolic link; links are not followed"}}, true, nil
		}
		return nil, nil, false, t.err
	}
	files, problems, err := t.walk(folder)
	return files, problems, true, err
}

// memory holds what files and folders came to, by their hashes.
type memory struct {
	files   map[file]manifest.Decoded
	renders map[string]manifest.Decoded // by render.Plan.Key
}

func newMemory() *memory {
	return &memory{files: map[file]manifest.Decoded{}, renders: map[string]manifest.Decoded{}}
}

// verdict is what a commit comes to.
type verdict struct {
	snapshot api.Snapshot
	problems []api.Invalid
	memory   *memory // of exactly this commit
}

// judge turns a commit into a snapshot and its problems. What is in one of the
// memories is not read again. An error means that the judgement could not be
// made: it says nothing about the commit.
func judge(ctx context.Context, trees forest, unit string, commit api.Commit, root string, known ...*memory) (verdict, error) {
	v, err := read(ctx, trees, unit, commit, root, known)
	if own, ok := errors.AsType[*commitError](err); ok {
		return verdict{problems: []api.Invalid{{File: root, Reason: own.reason}}}, nil
	}
	return v, err
}

func read(ctx context.Context, trees forest, unit string, commit api.Commit, root string, known []*memory) (verdict, error) {
	files, problems, found, err := trees.list(root)
	if err != nil {
		return verdict{}, err
	}
	if !found {
		return verdict{problems: []api.Invalid{{File: root, Reason: "there is no such folder in this commit; the sync path names it"}}}, nil
	}
	plan := lay(trees, root, files)
	problems = append(problems, plan.problems...)
	v := verdict{memory: newMemory()}
	decoded, err := decodeAll(ctx, trees, plan.plain, v.memory, known)
	if err != nil {
		return verdict{}, err
	}
	for _, p := range plan.plans {
		d, err := renderOne(ctx, trees, p, v.memory, known)
		if err != nil {
			return verdict{}, err
		}
		decoded = append(decoded, d)
	}
	if err := trees.broken(); err != nil {
		return verdict{}, err
	}
	v.snapshot, v.problems = manifest.Assemble(unit, commit, decoded)
	if v.snapshot.Len() == 0 && len(v.problems)+len(problems) == 0 {
		problems = append(problems, api.Invalid{
			File: cmp.Or(root, "."), Warning: true,
			Reason: "there is no manifest in this folder (*.yaml, *.yml, *.json): a fleet that follows it runs nothing",
		})
	}
	v.problems = api.SortInvalid(append(v.problems, problems...))
	return v, nil
}

// decodeAll decodes the plain manifests, on all processors. Files are read one
// after the other: the mirror is not made for more.
func decodeAll(ctx context.Context, trees render.Tree, files []file, into *memory, known []*memory) ([]manifest.Decoded, error) {
	out := make([]manifest.Decoded, len(files))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, f := range files {
		if d, ok := recall(f, known); ok {
			out[i] = d
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, errors.Join(err, group.Wait())
		}
		data, err := trees.Read(f.path)
		var size *sizeError
		switch {
		case errors.As(err, &size):
			out[i] = manifest.Decoded{Path: f.path, Problems: []api.Invalid{{
				File:   f.path,
				Reason: fmt.Sprintf("the file has %d bytes; manifests may have %d at most", size.size, size.limit),
			}}}
		case err != nil:
			return nil, errors.Join(fmt.Errorf("%s: %w", f.path, err), group.Wait())
		default:
			group.Go(func() error {
				out[i] = manifest.Decode(manifest.File{Path: f.path, Data: data})
				return nil
			})
		}
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, f := range files {
		into.files[f] = out[i]
	}
	return out, nil
}

func recall(f file, known []*memory) (manifest.Decoded, bool) {
	for _, m := range known {
		if d, ok := m.files[f]; ok {
			return d, true
		}
	}
	return manifest.Decoded{}, false
}

// renderOne builds one kustomization and decodes what comes out.
func renderOne(ctx context.Context, trees render.Tree, plan render.Plan, into *memory, known []*memory) (manifest.Decoded, error) {
	for _, m := range known {
		if d, ok := m.renders[plan.Key]; ok {
			into.renders[plan.Key] = d
			return d, nil
		}
	}
	objects, err := render.Build(ctx, trees, plan)
	if failed, ok := errors.AsType[*render.BuildError](err); ok {
		d := manifest.Decoded{Path: plan.Dir, Problems: []api.Invalid{{File: render.Find(trees, plan.Dir), Reason: "kustomize: " + failed.Reason}}}
		into.renders[plan.Key] = d
		return d, nil
	}
	if err != nil {
		return manifest.Decoded{}, err
	}
	made := make([]manifest.Rendered, len(objects))
	for i, o := range objects {
		made[i] = manifest.Rendered{Origin: path.Clean(o.Origin), Generated: o.Generated, JSON: o.JSON}
	}
	d := manifest.DecodeRendered(plan.Dir, made, func(name string) []byte {
		data, err := trees.Read(name)
		if err != nil {
			return nil
		}
		return data
	})
	into.renders[plan.Key] = d
	return d, nil
}
