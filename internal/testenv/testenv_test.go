package testenv_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestNetns(t *testing.T) {
	n := testenv.Netns(t)
	out, err := n.Command("readlink", "/proc/self/ns/net").Output()
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil || strings.TrimSpace(string(out)) == own {
		t.Errorf("inside: %q, outside: %q, %v", out, own, err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = n.Do(func() error {
		second, err := net.Listen("tcp", listener.Addr().String())
		if err == nil {
			second.Close()
		}
		return err
	})
	if err != nil {
		t.Errorf("the port is taken inside, too: %v", err)
	}
}

func TestImage(t *testing.T) {
	image := testenv.Image(t, testenv.Busybox())
	path := testenv.Archive(t, t.TempDir(), "example.com/box:1", image)
	if info, err := os.Stat(path); err != nil || info.Size() < 1<<20 {
		t.Errorf("archive: %v, %v", info, err)
	}
	testenv.Push(t, testenv.Registry(t), "box:1", image)
}
