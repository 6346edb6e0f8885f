package containerd_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
	"github.com/shoal-dev/shoal/runtime/network"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const image = "example.com/busybox:1"

func newEngine(t *testing.T, change ...func(*containerd.Config)) (e *containerd.Engine, dir string) {
	t.Helper()
	d := testenv.Containerd(t)
	dir = testenv.Dir(t)
	cfg := containerd.Config{Address: d.Address, RunDir: dir}
	for _, c := range change {
		c(&cfg)
	}
	e, err := containerd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.Reset(ctx); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	spec := testenv.Busybox()
	spec.Cmd = nil
	if names := importFile(t, e, testenv.Archive(t, dir, image, testenv.Image(t, spec))); len(names) != 1 || names[0] != image {
		t.Fatalf("import: got %q", names)
	}
	return e, dir
}

func importFile(t *testing.T, e *containerd.Engine, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	names, err := e.Import(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestContainerd(t *testing.T) {
	runtimetest.Run(t, func(t *testing.T) runtimetest.Fixture {
		e, dir := newEngine(t)
		n, err := network.New(network.Config{RunDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return runtimetest.Fixture{
			Engine: e,
			Image:  image,
			Archive: func(t *testing.T, name string) io.Reader {
				spec := testenv.Busybox()
				spec.Cmd = nil
				b, err := os.ReadFile(testenv.Archive(t, testenv.Dir(t), name, testenv.Image(t, spec)))
				if err != nil {
					t.Fatal(err)
				}
				return bytes.NewReader(b)
			},
			Sandbox: func(t *testing.T, instance string) (string, runtime.Namespaces) {
				s := network.Sandbox{Instance: instance, Hostname: "box"}
				id, err := n.Prepare(s)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := n.Remove(context.Background(), instance); err != nil {
						t.Error(err)
					}
				})
				return id, n.Namespaces(s)
			},
		}
	})
}

// All pods together, and each of them, get no more than they may.
func TestLimits(t *testing.T) {
	e, _ := newEngine(t)
	const instance = "limited"
	for range 2 { // it is idempotent
		if err := e.LimitPods(runtime.Resources{CPUShares: 1024, MemoryLimit: 1 << 30, PIDs: 5000}); err != nil {
			t.Fatal(err)
		}
		if err := e.CreatePod(instance, runtime.Resources{CPUShares: 100, PIDs: 50}); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if err := e.RemovePod(instance); err != nil {
			t.Error(err)
		}
	}()
	read := func(v1, v2 string) string {
		b, err := os.ReadFile("/sys/fs/cgroup/" + v1)
		if err != nil {
			b, err = os.ReadFile("/sys/fs/cgroup/" + v2)
		}
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(b))
	}
	root, group := e.Group(""), e.Group(instance)
	for _, c := range []struct{ what, got, want string }{
		{"memory of all", read("memory"+root+"/memory.limit_in_bytes", root+"/memory.max"), "1073741824"},
		{"processes of all", read("pids"+root+"/pids.max", root+"/pids.max"), "5000"},
		{"processes of one", read("pids"+group+"/pids.max", group+"/pids.max"), "50"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, c.got, c.want)
		}
	}
}
