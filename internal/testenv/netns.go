package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Net is a network namespace that was made for a test.
type Net struct {
	Path string // where it is pinned
}

// Netns makes a network namespace with its loopback up, and removes it with the
// test.
func Netns(t testing.TB) Net {
	t.Helper()
	path := filepath.Join(Dir(t), "net")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends
		done <- pin(path)
	}()
	if err := <-done; err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	return Net{Path: path}
}

func pin(path string) error {
	if unix.Gettid() == unix.Getpid() {
		// The first thread cannot end: leave it as it is.
		done := make(chan error, 1)
		go func() {
			runtime.LockOSThread()
			done <- pin(path)
		}()
		err := <-done
		runtime.UnlockOSThread()
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), path, "none", unix.MS_BIND, "")
}

// Command returns a command that runs in the namespace, with /sys/fs/cgroup as
// it is outside.
func (n Net) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + n.Path, "--", name}, args...)...)
}

// Do runs f on a thread within the namespace. Goroutines that f starts are
// outside.
func (n Net) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		target, err := netns.GetFromPath(n.Path)
		if err != nil {
			done <- err
			return
		}
		defer target.Close()
		if err := netns.Set(target); err != nil {
			done <- err
			return
		}
		err = f()
		if back := netns.Set(own); back == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
