package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/gitsync/render"
	"github.com/shoal-dev/shoal/internal/scenario"
	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/scheduler"
)

// TestMain renders where the process is a child that renders, as the program does.
func TestMain(m *testing.M) {
	if render.IsChild() {
		render.Main()
		return
	}
	m.Run()
}

// planned are the folders with golden plans: each of examples-repo, and those of
// the corpus that a node accepts.
func planned(t *testing.T) map[string]string {
	t.Helper()
	const corpus = "../../../shared/corpus/"
	out := map[string]string{"corpus-guestbook": corpus + "guestbook/guestbook/all-in-one", "corpus-guestbook-go": corpus + "guestbook/guestbook-go"}
	for _, name := range []string{"guestbook", "kustomize-guestbook", "sock-shop", "pre-post-sync", "sync-waves"} {
		out["corpus-argocd-"+name] = corpus + "argocd-example-apps/" + name
	}
	for _, name := range []string{"kubernetes-manifests", "release", "kustomize"} {
		out["corpus-microservices-"+name] = corpus + "microservices-demo/" + name
	}
	examples, err := os.ReadDir("../../examples-repo")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range examples {
		if e.IsDir() {
			out["examples-"+e.Name()] = "../../examples-repo/" + e.Name()
		}
	}
	return out
}

// TestGoldenPlans: what three machines would do with each folder.
func TestGoldenPlans(t *testing.T) {
	fleet, err := readInventory("testdata/three.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, folder := range planned(t) {
		t.Run(name, func(t *testing.T) {
			dir, err := filepath.Abs(folder)
			if err != nil {
				t.Fatal(err)
			}
			snapshot, problems, err := gitsync.Check(t.Context(), gitsync.Root(dir), dir)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			if api.Refused(problems) {
				out.WriteString("a node would refuse this\n")
			} else if err := printPlan(&out, scheduler.Foresee(api.Snapshot{}, snapshot, fleet.Board, fleet.Facts, time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC))); err != nil {
				t.Fatal(err)
			}
			golden := "testdata/plans/" + name + ".txt"
			scenario.Golden(t, golden, out.String())
		})
	}
}

// shoal runs a command and returns what it printed and its exit status.
func shoal(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := root()
	var out, errs bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	var exit exitError
	switch {
	case errors.As(err, &exit):
		status = int(exit)
	case err != nil:
		status = 2
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), status
}

// TestPlanOfTwoCommits: a plan from one commit to another needs neither a daemon
// nor the commit on disk, says what differs in three ways, and its exit status
// says what came of it.
func TestPlanOfTwoCommits(t *testing.T) {
	dir := testenv.Dir(t)
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "apps"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "apps", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		git("add", "-A")
		git("commit", "-qm", name)
	}
	pod := func(name, cpu string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec: {containers: [{name: c, image: x, resources: {requests: {cpu: " + cpu + "}}}]}\n"
	}
	git("init", "-q", "-b", "main")
	write("a.yaml", pod("a", "1"))
	git("tag", "first")
	write("b.yaml", pod("b", "500m"))
	git("tag", "second")
	write("c.yaml", pod("c", "40"))
	git("tag", "third")
	write("d.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: d}\nspec: {}\n")

	plan := func(more ...string) (string, string, int) {
		return shoal(t, append([]string{"plan", filepath.Join(dir, "apps"), "--nodes", "testdata/three.yaml"}, more...)...)
	}
	if out, _, status := plan("--base", "first", "--head", "first"); status != 0 || !strings.Contains(out, "0 pods start, 0 stop, 1 stay") {
		t.Errorf("no change: %d\n%s", status, out)
	}
	if out, _, status := plan("--base", "first", "--head", "second"); status != 3 || !strings.Contains(out, "+ Pod default/b: apps/b.yaml:1\n") || !strings.Contains(out, "1 pods start, 0 stop, 1 stay") {
		t.Errorf("one more: %d\n%s", status, out)
	}
	if out, _, status := plan("--base", "second", "--head", "first", "-o", "markdown"); status != 3 || !strings.Contains(out, "| `-` | Pod default/b | apps/b.yaml:1 |") {
		t.Errorf("one less: %d\n%s", status, out)
	}
	out, _, status := plan("--base", "second", "--head", "third", "-o", "json")
	var p scheduler.Plan
	if err := json.Unmarshal([]byte(out), &p); err != nil || status != 1 || len(p.Pending) != 1 || !strings.Contains(p.Pending[0].Reason, "Insufficient cpu") {
		t.Errorf("one that does not fit: %d, %v\n%s", status, err, out)
	}
	if _, errs, status := plan("--base", "first"); status != 1 || !strings.Contains(errs, "apps/d.yaml:4: spec.containers: Required value") {
		t.Errorf("a mistake: %d\n%s", status, errs)
	}
	for name, more := range map[string][]string{
		"an unknown revision": {"--head", "nowhere"}, "an unknown form": {"-o", "xml"}, "nodes that are none": {"--head", "third", "--nodes", "plan_test.go"}, "no file of nodes": {"--head", "third", "--nodes", "/nowhere"},
	} {
		if out, errs, status := plan(more...); status != 2 || errs == "" {
			t.Errorf("%s: %d\n%s%s", name, status, out, errs)
		}
	}
}

// TestInventory: a file of nodes that cannot be planned for says what is wrong.
func TestInventory(t *testing.T) {
	node := func(name string) string {
		return "apiVersion: v1\nkind: Node\nmetadata: {name: " + name + "}\nstatus: {capacity: {cpu: 1, memory: 1Gi}}\n"
	}
	for name, test := range map[string]struct{ text, want string }{
		"empty":       {"", "has none"},
		"twice":       {node("a") + "---\n" + node("a"), `has the node "a" twice`},
		"a pod":       {"apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "there is a Pod"},
		"no name":     {node(`""`), "no name"},
		"no size":     {"kind: Node\nmetadata: {name: a}\n", "status.allocatable must say"},
		"no quantity": {"kind: Node\nmetadata: {name: a}\nstatus: {allocatable: {cpu: much, memory: 1Gi}}\n", "quantities must match"},
		"no YAML":     {"a: [", "read the nodes"},
	} {
		file := filepath.Join(testenv.Dir(t), "nodes.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readInventory(file); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
	}
}
