package containerd_test

import (
	"bytes"
	"context"
	"io"
	"os"
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
