package gitsync

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// deployments fills a repository with n manifests, 100 to a folder.
func deployments(b *testing.B, n int) work {
	b.Helper()
	w := newWork(b)
	for i := range n {
		w.write(manifestName(i), deploymentText(i, 1))
	}
	w.commit("first")
	w.git("gc", "-q")
	return w
}

func manifestName(i int) string { return fmt.Sprintf("apps/%03d/app-%05d.yaml", i/100, i) }

func deploymentText(i, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: app-%05d
  labels:
    app: app-%05d
spec:
  replicas: %d
  selector:
    matchLabels:
      app: app-%05d
  template:
    metadata:
      labels:
        app: app-%05d
    spec:
      containers:
      - name: web
        image: registry.example.com/team/app:v1
        ports:
        - name: http
          containerPort: 8080
        env:
        - name: MODE
          value: production
        resources:
          requests: {cpu: 10m, memory: 16Mi}
          limits: {memory: 64Mi}
        readinessProbe:
          httpGet: {path: /healthz, port: http}
`, i, i, replicas, i, i)
}

// move points the branch at a commit the way git does, without starting git.
func (w work) move(commit api.Commit) {
	w.t.Helper()
	ref := filepath.Join(w.dir, ".git/refs/heads/main")
	if err := os.WriteFile(ref+".lock", []byte(string(commit)+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(ref+".lock", ref); err != nil {
		w.t.Fatal(err)
	}
}

// prepare makes a commit that changes one file, without moving the branch.
func (w work) prepare(name, data string) api.Commit {
	w.t.Helper()
	before := api.Commit(w.git("rev-parse", "HEAD"))
	w.write(name, data)
	commit := w.commit("change")
	w.move(before)
	return commit
}

func benchmarkOneFile(b *testing.B, n int) {
	w := deployments(b, n)
	r := follow(b, Config{URL: w.dir, Path: "apps", Poll: time.Hour})
	waitCommit(b, r, api.Commit(w.git("rev-parse", "HEAD")))
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		commit := w.prepare(manifestName(n/2), deploymentText(n/2, i+2))
		b.StartTimer()
		w.move(commit)
		waitCommit(b, r, commit)
	}
}

// The branch moves until the commit is in force, seen by the watch.
func BenchmarkOneFileOf10(b *testing.B)    { benchmarkOneFile(b, 10) }
func BenchmarkOneFileOf1000(b *testing.B)  { benchmarkOneFile(b, 1_000) }
func BenchmarkOneFileOf10000(b *testing.B) { benchmarkOneFile(b, 10_000) }

func BenchmarkFirstLoad1000(b *testing.B) {
	w := deployments(b, 1_000)
	for b.Loop() {
		r := follow(b, Config{URL: w.dir, Path: "apps"})
		waitCommit(b, r, api.Commit(w.git("rev-parse", "HEAD")))
	}
}

// A restart with the mirror in place.
func BenchmarkOpen1000(b *testing.B) {
	w := deployments(b, 1_000)
	state := b.TempDir()
	cfg := Config{Dir: state, URL: w.dir, Path: "apps"}
	r, err := Open(cfg)
	if err != nil {
		b.Fatal(err)
	}
	stop := run(b, r)
	waitCommit(b, r, api.Commit(w.git("rev-parse", "HEAD")))
	stop()
	for b.Loop() {
		again, err := Open(cfg)
		if err != nil || !again.Latest().Known() {
			b.Fatal(err, again.Status())
		}
	}
}
