package gitsync

import (
	"testing"

	"github.com/shoal-dev/shoal/api"
)

// TestRevisionOfAnOlderCommit: where a revision covers configuration, an older commit
// has the revision that it had in force, and the configuration that goes with it.
func TestRevisionOfAnOlderCommit(t *testing.T) {
	w := newWork(t)
	w.write("web.yaml", `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {fleet.shoal.dev/roll-on-config: "true"}}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x, envFrom: [{configMapRef: {name: m}}]}]}
`)
	w.write("config.yaml", configMap("m", "old"))
	first := w.commit("old")
	r := follow(t, Config{URL: w.dir})
	waitCommit(t, r, first)
	revisionOf := func(s api.Snapshot) string {
		t.Helper()
		object, found := s.Lookup(api.Key{Group: "apps", Kind: "Deployment", Namespace: "default", Name: "web"})
		if !found {
			t.Fatal("it is gone")
		}
		return object.Revision
	}
	before := revisionOf(r.Latest())

	w.write("config.yaml", configMap("m", "new"))
	waitCommit(t, r, w.commit("new"))
	if revisionOf(r.Latest()) == before {
		t.Error("a changed ConfigMap changed nothing")
	}
	old, err := r.At(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := revisionOf(old); got != before {
		t.Errorf("the older commit has the revision %s now, it had %s", got, before)
	}
	w.git("revert", "--no-edit", "HEAD")
	waitCommit(t, r, w.commit("nothing more"))
	if got := revisionOf(r.Latest()); got != before {
		t.Errorf("the revert has the revision %s, want %s", got, before)
	}
}
