package testenv

import (
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mounts returns the mount points at or below a folder, deepest first.
func Mounts(dir string) []string {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && (fields[4] == dir || strings.HasPrefix(fields[4], dir+"/")) {
			out = append(out, fields[4])
		}
	}
	slices.Reverse(out)
	return out
}

// Unmount unmounts everything at or below a folder.
func Unmount(dir string) { unmountBelow(dir) }

func unmountBelow(dir string) {
	for _, point := range Mounts(dir) {
		_ = unix.Unmount(point, unix.MNT_DETACH)
	}
}
