package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMain(m *testing.M) {
	if IsChild() && strings.HasPrefix(os.Args[1], "test:") {
		misbehave(os.Args[1])
	}
	Main()
	m.Run()
}

// memoryTree is a Tree that is written in a test.
type memoryTree map[string]string

func (m memoryTree) Hash(file string) string {
	if _, found := m[file]; found {
		return "#" + m[file]
	}
	return ""
}

func (m memoryTree) Read(file string) ([]byte, error) {
	if _, found := m[file]; !found {
		return nil, fs.ErrNotExist
	}
	return []byte(m[file]), nil
}

func (m memoryTree) Under(folder string) (files []string) {
	for name := range m {
		if folder == "." || strings.HasPrefix(name, folder+"/") {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestBuild(t *testing.T) {
	tree := memoryTree{
		"base/kustomization.yaml": "resources: [a.yaml]\nsecretGenerator:\n- name: s\n  literals: [a=b]\n",
		"base/a.yaml":             configMap,
		"prod/kustomization.yaml": "resources: [../base]\nnamePrefix: p-\npatches:\n- path: ../patches/p.yaml\n",
		"patches/p.yaml":          configMap + "data: {x: y}\n",
		"elsewhere/b.yaml":        configMap,
	}
	plan, problems := NewPlan(tree, "prod")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if diff := cmp.Diff([]string{"base/a.yaml", "base/kustomization.yaml", "patches/p.yaml", "prod/kustomization.yaml"}, plan.Files); diff != "" {
		t.Errorf("files -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"base", "prod"}, plan.Folders); diff != "" {
		t.Errorf("folders -want +got:\n%s", diff)
	}
	objects, err := Build(context.Background(), tree, plan)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range objects {
		got = append(got, fmt.Sprintf("%s %t %s", o.Origin, o.Generated, o.JSON))
	}
	want := []string{
		`base/a.yaml false {"apiVersion":"v1","data":{"x":"y"},"kind":"ConfigMap","metadata":{"name":"p-a"}}`,
		`base/kustomization.yaml true {"apiVersion":"v1","data":{"a":"Yg=="},"kind":"Secret","metadata":{"name":"p-s-k695gkmbtk"},"type":"Opaque"}`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects -want +got:\n%s", diff)
	}
	tree["patches/p.yaml"] += "# changed\n"
	if again, _ := NewPlan(tree, "prod"); again.Key == plan.Key {
		t.Error("the key stays when a patch changes")
	}
	tree["elsewhere/b.yaml"] += "# changed\n"
	if again, _ := NewPlan(tree, "base"); again.Key == plan.Key {
		t.Error("two folders have one key")
	}
}

func TestBuildError(t *testing.T) {
	tree := memoryTree{"kustomization.yaml": "resources: [a.yaml]\nnope: 1\n", "a.yaml": configMap}
	plan, _ := NewPlan(tree, ".")
	_, err := Build(context.Background(), tree, plan)
	var failed *BuildError
	if !errors.As(err, &failed) || !strings.Contains(failed.Reason, `unknown field "nope"`) {
		t.Errorf("got %v", err)
	}
}

// What Plan refuses would be fetched by kustomize; the child must not reach
// the server even when it is asked to.
func TestChildHasNoNetwork(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		_, _ = w.Write([]byte(configMap))
	}))
	defer server.Close()
	tree := memoryTree{"kustomization.yaml": "resources: ['" + server.URL + "/a.yaml']\n"}
	plan, problems := NewPlan(tree, ".")
	if len(problems) != 1 {
		t.Errorf("a URL is planned: %v", problems)
	}
	if _, err := Build(context.Background(), tree, plan); err == nil {
		t.Error("a URL was built")
	}
	if n := requests.Load(); n != 0 {
		t.Errorf("the server saw %d requests", n)
	}
}

// A tree that makes kustomize eat memory or time ends the child, not us.
func TestChildIsLimited(t *testing.T) {
	if _, err := run(context.Background(), "test:hog", strings.NewReader(""), 0); err == nil || !strings.Contains(err.Error(), "needs more than 1024 MiB") {
		t.Errorf("a hog ends with %v", err)
	}
	if _, err := run(context.Background(), "test:write", strings.NewReader(""), 0); err == nil || !strings.Contains(err.Error(), "file too large") {
		t.Errorf("a write ends with %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := run(ctx, "test:sleep", strings.NewReader(""), 0); err == nil || !strings.Contains(err.Error(), "took longer") {
		t.Errorf("a sleeper ends with %v", err)
	}
	if out, err := run(context.Background(), "no/kustomization", strings.NewReader(""), 0); err != nil || !strings.Contains(string(out), "no kustomization in") {
		t.Errorf("an empty tree ends with %s, %v", out, err)
	}
}

// misbehave is what a child does that was taken over by what it reads.
func misbehave(how string) {
	if err := limit(); err != nil {
		panic(err)
	}
	switch how {
	case "test:hog":
		var hoard [][]byte
		for {
			hoard = append(hoard, bytes.Repeat([]byte("x"), 16<<20))
			runtime.KeepAlive(hoard)
		}
	case "test:write":
		signal.Ignore(syscall.SIGXFSZ)
		f, err := os.CreateTemp("", "")
		if err == nil {
			_ = os.Remove(f.Name())
			_, err = f.WriteString("x")
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "test:sleep":
		time.Sleep(time.Hour)
	}
}

func TestRemote(t *testing.T) {
	for text, want := range map[string]bool{
		"https://example.com/x": true, "github.com/a/b": true, "git@host:x": true, "host:x/y": true, "x?ref=v1": true,
		"file:///etc": true, "s3::https://x": true, "git::x": true,
		"../base": false, "./base": false, "base": false, "a.yaml": false, "sub/a.yaml": false,
	} {
		if got := remote(text); got != want {
			t.Errorf("remote(%q) = %t", text, got)
		}
	}
}

func BenchmarkBuild50(b *testing.B) {
	tree := memoryTree{}
	var names []string
	for i := range 50 {
		name := fmt.Sprintf("a%d.yaml", i)
		names = append(names, name)
		tree[name] = strings.Replace(configMap, "name: a", fmt.Sprintf("name: a%d", i), 1)
	}
	tree["kustomization.yaml"] = "namespace: shop\nresources: [" + strings.Join(names, ", ") + "]\n"
	for b.Loop() {
		plan, problems := NewPlan(tree, ".")
		if _, err := Build(context.Background(), tree, plan); err != nil || len(problems) > 0 {
			b.Fatal(err, problems)
		}
	}
}
