package testenv

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Daemon is a private containerd.
type Daemon struct {
	Address string // of its socket
	Root    string

	t      testing.TB
	config string

	mu  sync.Mutex
	cmd *exec.Cmd
}

// Containerd starts a containerd with a root, a state and a socket of its own,
// and ends it with the test.
func Containerd(t testing.TB) *Daemon {
	t.Helper()
	dir := Dir(t)
	d := &Daemon{
		Address: filepath.Join(dir, "containerd.sock"),
		Root:    filepath.Join(dir, "root"),
		t:       t,
		config:  filepath.Join(dir, "config.toml"),
	}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, d.Root, filepath.Join(dir, "state"), d.Address, d.Address+".ttrpc")
	if err := os.WriteFile(d.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Start()
	t.Cleanup(func() {
		d.Kill()
		unmountBelow(dir)
	})
	return d
}

// Start starts it and waits until it listens.
func (d *Daemon) Start() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	out, err := os.OpenFile(d.config+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // containerd has its own descriptor
	d.cmd = exec.Command("containerd", "--config", d.config)
	d.cmd.Stdout, d.cmd.Stderr = out, out
	if err := d.cmd.Start(); err != nil {
		d.t.Fatalf("start containerd: %v", err)
	}
	Eventually(d.t, 20*time.Second, "containerd listens", func() bool {
		conn, err := net.Dial("unix", d.Address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
}

// Kill ends it with SIGKILL; containers run on.
func (d *Daemon) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGKILL)
	_ = d.cmd.Wait()
	d.cmd = nil
}

// Log returns what it logged.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(d.config + ".log")
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Dir returns a folder that is removed with the test, with a short path:
// sockets live in it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shoal-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unmountBelow(dir)
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// Eventually fails the test unless ok becomes true within the limit.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for wait := time.Millisecond; !ok(); wait = min(2*wait, 20*time.Millisecond) {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		case <-time.After(wait):
		}
	}
}
