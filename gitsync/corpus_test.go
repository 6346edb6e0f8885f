package gitsync

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/scenario"
)

// corpus holds manifests that nobody of this project wrote. It is only read.
const corpus = "../../shared/corpus"

// targets are the folders of the corpus that a user would name as sync path,
// by the repository they are in.
var targets = []struct {
	root  string
	paths []string
}{
	{"guestbook", []string{"guestbook", "guestbook/all-in-one", "guestbook/legacy", "guestbook-go"}},
	{"argocd-example-apps", []string{"guestbook", "helm-guestbook", "kustomize-guestbook", "pre-post-sync", "sock-shop", "sync-waves"}},
	{"microservices-demo", []string{
		"kubernetes-manifests", "release", "kustomize", "kustomize/base", "helm-chart", "kustomize/tests/memorystore-with-all-components",
		"kustomize/tests/service-mesh-istio-with-all-components", "kustomize/tests/spanner-with-all-components",
	}},
	{"flux2-kustomize-helm-example", []string{
		"apps/production", "apps/staging", "clusters/production", "clusters/staging", "infrastructure/configs", "infrastructure/controllers",
	}},
}

// The verdict of "shoal check" on every file of every folder.
func TestCorpus(t *testing.T) {
	var b strings.Builder
	for _, target := range targets {
		for _, dir := range target.paths {
			report(t, &b, target.root, dir)
		}
	}
	golden := filepath.Join("testdata", "corpus.golden")
	scenario.Golden(t, golden, b.String())
}

func report(t *testing.T, b *strings.Builder, repository, dir string) {
	t.Helper()
	root, err := filepath.Abs(filepath.Join(corpus, repository))
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(root, dir)
	snapshot, problems, err := Check(context.Background(), root, at)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	verdict := "accepted"
	if api.Refused(problems) {
		verdict = "refused"
	}
	fmt.Fprintf(b, "%s: %s\n", path.Join(repository, dir), verdict)
	said := map[string][]string{}
	for o := range snapshot.Objects() {
		said[o.Source.File] = append(said[o.Source.File], fmt.Sprintf("%d: %s", o.Source.Line, o.Key()))
	}
	for _, p := range problems {
		said[p.File] = append(said[p.File], strings.TrimPrefix(strings.TrimPrefix(p.Error(), p.File), ":"))
	}
	files, _, _, err := (&folder{root: root}).list(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.path)
	}
	for name := range said {
		names = append(names, name)
	}
	for _, name := range sortedUnique(names) {
		if said[name] == nil {
			fmt.Fprintf(b, "  %s: no object of its own\n", name)
			continue
		}
		fmt.Fprintf(b, "  %s\n", name)
		for _, line := range said[name] {
			fmt.Fprintf(b, "    %s\n", strings.TrimSpace(line))
		}
	}
}
