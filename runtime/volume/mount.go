package volume

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// MountTmpfs mounts a tmpfs unless there is one. size is in bytes; 0 means half
// of the memory.
func MountTmpfs(path string, size int64, mode os.FileMode) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err == nil && st.Type == unix.TMPFS_MAGIC && mounted(path) {
		return nil
	}
	options := fmt.Sprintf("mode=%o", mode.Perm())
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount tmpfs on %s: %w", path, err)
	}
	return nil
}

// mounted reports whether path is itself a mount point.
func mounted(path string) bool {
	var own, parent unix.Stat_t
	return unix.Lstat(path, &own) == nil && unix.Lstat(filepath.Dir(path), &parent) == nil && own.Dev != parent.Dev
}

// mountsBelow returns the mount points at or below dir, deepest first.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	var out []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		if point == dir || strings.HasPrefix(point, dir+"/") {
			out = append(out, point)
		}
	}
	slices.Reverse(out)
	return out, lines.Err()
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// UnmountBelow unmounts everything at or below dir.
func UnmountBelow(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil &&
			!errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", point, err)
		}
	}
	return nil
}

// RemoveUnmounted unmounts everything at or below dir and deletes dir. While
// anything is still mounted there nothing is deleted: it would be deleted from
// where it is mounted from.
func RemoveUnmounted(dir string) error {
	if err := UnmountBelow(dir); err != nil {
		return err
	}
	left, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("remove %s: %s is still mounted", dir, left[0])
	}
	return os.RemoveAll(dir)
}

// hostPath checks that a path of the machine is what the volume says, and makes
// it where the type asks for that.
// Source: kubernetes.io, Volumes, "hostPath volume types".
func hostPath(source *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	info, err := os.Stat(source.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	want := func(ok bool) error {
		if missing {
			return fmt.Errorf("hostPath type check failed: %s does not exist", source.Path)
		}
		if !ok {
			return fmt.Errorf("hostPath type check failed: %s is not a %s", source.Path, kind)
		}
		return nil
	}
	switch kind {
	case corev1.HostPathUnset:
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(source.Path, 0o755)
		}
		return want(info.IsDir())
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(source.Path, os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		return want(info.Mode().IsRegular())
	case corev1.HostPathDirectory:
		return want(!missing && info.IsDir())
	case corev1.HostPathFile:
		return want(!missing && info.Mode().IsRegular())
	case corev1.HostPathSocket:
		return want(!missing && info.Mode()&os.ModeSocket != 0)
	case corev1.HostPathCharDev:
		return want(!missing && info.Mode()&os.ModeCharDevice != 0)
	case corev1.HostPathBlockDev:
		return want(!missing && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0)
	}
	return fmt.Errorf("hostPath type %q is not known", kind)
}
