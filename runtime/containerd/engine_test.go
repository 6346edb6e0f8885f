package containerd_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
	"github.com/shoal-dev/shoal/runtime/network"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestExecTimes(t *testing.T) {
	d := testenv.Containerd(t)
	dir := testenv.Dir(t)
	e, err := containerd.New(containerd.Config{Address: d.Address, RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	t.Cleanup(func() {
		if err := e.Reset(ctx); err != nil {
			t.Error(err)
		}
		e.Close()
	})
	f, err := os.Open(testenv.Archive(t, dir, "example.com/busybox:1", testenv.Image(t, testenv.Busybox())))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	names, err := e.Import(ctx, f)
	t.Log(names, err, time.Since(begin))
	n, err := network.New(network.Config{RunDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	instance := uuid.NewString()
	s := network.Sandbox{Instance: instance, Hostname: "x"}
	id, err := n.Prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Remove(ctx, instance)
	_ = filepath.Join
	spec := runtime.ContainerSpec{
		ID: runtime.ContainerID(instance, "app", 0, ""), Assignment: api.Assignment{Pod: api.Pod{Instance: instance}},
		Name: "app", Sandbox: id, Image: "example.com/busybox:1", Command: []string{"sleep", "1000"}, Namespaces: n.Namespaces(s),
	}
	begin = time.Now()
	if err := e.Create(ctx, spec); err != nil {
		t.Fatal(err)
	}
	t.Log("create", time.Since(begin))
	begin = time.Now()
	if _, err := e.Start(ctx, spec.ID); err != nil {
		t.Fatal(err)
	}
	t.Log("start", time.Since(begin))
	for range 10 {
		begin = time.Now()
		var out bytes.Buffer
		code, err := e.Exec(ctx, spec.ID, []string{"echo", "hi"}, runtime.Streams{Stdout: &out, Stderr: &out})
		t.Log("exec", code, err, out.String(), time.Since(begin))
	}
}
