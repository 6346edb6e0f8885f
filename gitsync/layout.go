package gitsync

import (
	"path"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/render"
)

// layout says what is done with the files below the sync path.
type layout struct {
	plain    []file        // read as they are
	plans    []render.Plan // built by kustomize; those with problems are left out
	problems []api.Invalid
}

// lay applies the rules that a user of Flux, Argo CD or kubectl expects:
//
//   - A folder with a kustomization file is a kustomization and is built as a
//     whole: what is below it is only read as far as it says so. If the sync
//     path itself is one, nothing else counts.
//   - A kustomization that another one refers to is a base and not applied by
//     itself, nor is a Component.
//   - Every other .yaml, .yml and .json file is a manifest. One that is not,
//     such as Helm values, is a mistake: the sync path is for manifests.
//   - A folder with a Chart.yaml is a Helm chart, which is reported once.
//   - Names that start with a dot, and other files, are left alone.
func lay(tree render.Tree, root string, files []file) layout {
	var l layout
	tops, charts := folders(files)
	plans := map[string]render.Plan{}
	bad := map[string]bool{}
	for _, dir := range tops {
		plan, problems := render.NewPlan(tree, dir)
		plans[dir], bad[dir] = plan, len(problems) > 0
		l.problems = append(l.problems, problems...)
	}
	used := map[string]bool{}
	for _, dir := range tops {
		plan := plans[dir]
		if plan.Component && dir == root {
			l.problems = append(l.problems, api.Invalid{
				File: render.Find(tree, dir), Field: "kind",
				Reason: "a Component cannot be applied by itself; point the sync path at a Kustomization that names it",
			})
		}
		if plan.Component || isBase(dir, plans) {
			continue
		}
		if !bad[dir] {
			l.plans = append(l.plans, plan)
		}
		for _, name := range plan.Files {
			used[name] = true
		}
	}
	for _, dir := range charts {
		l.problems = append(l.problems, api.Invalid{
			File:   path.Join(dir, "Chart.yaml"),
			Reason: "this folder is a Helm chart; charts are planned, not rendered yet: commit what \"helm template\" prints, or set the sync path to another folder",
		})
	}
	covers := append(slices.Clone(tops), charts...)
	for _, f := range files {
		if isManifest(f.path) && !used[f.path] && !slices.ContainsFunc(covers, func(dir string) bool { return within(f.path, dir) }) {
			l.plain = append(l.plain, f)
		}
	}
	return l
}

// folders finds the kustomizations and the Helm charts that are not inside of
// another one, sorted.
func folders(files []file) (tops, charts []string) {
	var found []string
	kustomization := map[string]bool{}
	for _, f := range files {
		dir, name := path.Split(f.path)
		dir = path.Clean(dir)
		if render.IsKustomization(name) {
			kustomization[dir] = true
			found = append(found, dir)
		} else if name == "Chart.yaml" {
			found = append(found, dir)
		}
	}
	slices.Sort(found)
	for _, dir := range slices.Compact(found) {
		inside := func(other string) bool { return within(dir, other) }
		if slices.ContainsFunc(tops, inside) || slices.ContainsFunc(charts, inside) {
			continue
		}
		if kustomization[dir] {
			tops = append(tops, dir)
		} else {
			charts = append(charts, dir)
		}
	}
	return tops, charts
}

// within reports whether a file or folder is below a folder or that folder.
func within(name, dir string) bool {
	return dir == "." || name == dir || strings.HasPrefix(name, dir+"/")
}

// isBase reports whether another kustomization takes this one in. Two that
// take in each other are both built, so that kustomize says what is wrong.
func isBase(dir string, plans map[string]render.Plan) bool {
	for other, plan := range plans {
		if other != dir && slices.Contains(plan.Folders, dir) && !slices.Contains(plans[dir].Folders, other) {
			return true
		}
	}
	return false
}

func isManifest(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
