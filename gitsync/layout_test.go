package gitsync

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/scenario"
)

func sortedUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// Each archive is a repository; its comment's last line is the sync path, and
// "want" is what becomes of it.
func TestLayout(t *testing.T) {
	scenario.Run(t, "testdata/layout/*.txtar", func(t *testing.T, c scenario.Case) string {
		root := t.TempDir()
		for _, f := range c.Sections {
			work{t, root}.write(f.Name, string(f.Data))
		}
		lines := strings.Split(strings.TrimSpace(c.Comment), "\n")
		return checkText(t, root, strings.TrimPrefix(lines[len(lines)-1], "path: "))
	})
}

func checkText(t *testing.T, root, dir string) string {
	t.Helper()
	snapshot, problems, err := Check(context.Background(), root, filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.Error() + "\n")
	}
	for o := range snapshot.Objects() {
		b.WriteString(o.Key().String() + " " + o.Source.String() + "\n")
	}
	return b.String()
}

// A kustomization goes through the mirror like everything else, and a change
// of a base is a change of what uses it.
func TestKustomizeFromGit(t *testing.T) {
	w := newWork(t)
	w.write("base/kustomization.yaml", "resources: [a.yaml]\nconfigMapGenerator:\n- name: generated\n  files: [x=.env]\n")
	w.write("base/a.yaml", configMap("a", "1"))
	w.write("base/.env", "A=1\n")
	w.write("base/picture.bin", strings.Repeat("x", 2<<20))
	w.write("prod/kustomization.yaml", "resources: [../base]\nnamePrefix: prod-\nnamespace: shop\n")
	first := w.commit("first")
	r := follow(t, Config{URL: w.dir, Path: "prod"})
	waitCommit(t, r, first)
	want := []string{"ConfigMap shop/prod-a base/a.yaml:1 at " + first.Short(), "ConfigMap shop/prod-generated-bk2h92c7d6 base/kustomization.yaml:2 at " + first.Short()}
	if diff := cmp.Diff(want, sources(r.Latest())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.write("base/a.yaml", configMap("a", "1")+"datta: {}\n")
	bad := w.commit("bad")
	status := wait(t, r, "refusal", func(s api.UnitStatus) bool { return s.Tip.Commit == bad })
	if got := status.Problems[0].Error(); got != "base/a.yaml:5: datta: unknown field" {
		t.Errorf("problem is %s", got)
	}
}

func sources(s api.Snapshot) (out []string) {
	for o := range s.Objects() {
		out = append(out, o.Key().String()+" "+o.Source.String())
	}
	return out
}
