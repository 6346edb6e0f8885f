package consensustest

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/shoal-dev/shoal/gossip/consensus"
)

// TestDisk checks what a Store relies on. open returns the disk again, with what
// was written before; the first call returns an empty one.
func TestDisk(t *testing.T, open func(t *testing.T) consensus.Disk) {
	disk := open(t)
	if _, err := disk.ReadFile("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := disk.Remove("a"); err != nil {
		t.Errorf("to remove what is not there: %v", err)
	}
	check(t, disk.WriteFile("a", []byte("one")))
	check(t, disk.WriteFile("a", []byte("second")))
	check(t, disk.WriteFile("b", []byte("third")))
	check(t, disk.Rename("b", "a"))
	if err := disk.Rename("b", "a"); err == nil {
		t.Error("a file that is not there was renamed")
	}
	file, err := disk.Open("log", 8192)
	check(t, err)
	b := bytes.Repeat([]byte{1}, 8192)
	if n, err := file.ReadAt(b, 0); n != 8192 || !bytes.Equal(b, make([]byte, 8192)) {
		t.Errorf("a new file has %d bytes that may not be zeros: %v", n, err)
	}
	if _, err := file.ReadAt(b[:1], 8192); err == nil {
		t.Error("read beyond the end")
	}
	_, err = file.WriteAt([]byte("hello"), 4000)
	check(t, err)
	check(t, file.Sync())
	check(t, file.Close())

	disk = open(t)
	raw, err := disk.ReadFile("a")
	if err != nil || string(raw) != "third" {
		t.Errorf("got %q, %v", raw, err)
	}
	file, err = disk.Open("log", 4096)
	check(t, err)
	if _, err := file.ReadAt(b[:7], 3999); err != nil || string(b[:7]) != "\x00hello\x00" {
		t.Errorf("got %q, %v", b[:7], err)
	}
	check(t, file.Close())
	check(t, disk.Remove("log"))
	if _, err := disk.ReadFile("log"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was removed: %v", err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
