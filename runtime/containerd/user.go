package containerd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/runtime"
)

// user returns the user that a process runs as: the security context's, else
// the image's, by number or by a name that the image's own files know.
func user(s runtime.Security, image string, rootfs []mount.Mount) (specs.User, error) {
	name, group, _ := strings.Cut(image, ":")
	if s.User != nil {
		name, group = strconv.FormatInt(*s.User, 10), ""
	}
	if name == "" {
		name = "0"
	}
	if _, err := strconv.ParseUint(name, 10, 32); err != nil && s.NonRoot {
		return specs.User{}, fmt.Errorf("%w: container has runAsNonRoot and image has non-numeric user (%s), "+
			"cannot verify user is non-root", runtime.ErrConfig, name)
	}
	passwd, err := readIn(rootfs, "etc/passwd")
	if err != nil {
		return specs.User{}, err
	}
	groups, err := readIn(rootfs, "etc/group")
	if err != nil {
		return specs.User{}, err
	}
	entry, found := lookup(passwd, name, 2)
	out := specs.User{}
	login := ""
	switch {
	case found:
		out.UID, login = id(entry[2]), entry[0]
		if len(entry) > 3 {
			out.GID = id(entry[3])
		}
	default:
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			return out, fmt.Errorf("%w: the image has no user %q", runtime.ErrConfig, name)
		}
		out.UID = uint32(uid)
	}
	if out.UID == 0 && s.NonRoot {
		return out, fmt.Errorf("%w: container has runAsNonRoot and image will run as root", runtime.ErrConfig)
	}
	switch {
	case s.Group != nil:
		out.GID = uint32(*s.Group)
	case group != "":
		entry, found := lookup(groups, group, 2)
		if !found {
			gid, err := strconv.ParseUint(group, 10, 32)
			if err != nil {
				return out, fmt.Errorf("%w: the image has no group %q", runtime.ErrConfig, group)
			}
			out.GID = uint32(gid)
		} else {
			out.GID = id(entry[2])
		}
	}
	if s.StrictGroups {
		login = ""
	}
	out.AdditionalGids = additional(out.GID, login, groups, s.Groups)
	return out, nil
}

// additional returns the groups a process is in besides its first one, sorted.
func additional(gid uint32, login string, groups []byte, more []int64) []uint32 {
	out := []uint32{gid}
	for line := range bytes.Lines(groups) {
		fields := strings.Split(strings.TrimSpace(string(line)), ":")
		if login != "" && len(fields) > 3 && slices.Contains(strings.Split(fields[3], ","), login) {
			out = append(out, id(fields[2]))
		}
	}
	for _, g := range more {
		out = append(out, uint32(g))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lookup finds a line of passwd or group by its name or by its number.
func lookup(file []byte, key string, numberField int) ([]string, bool) {
	lines := bufio.NewScanner(bytes.NewReader(file))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) > numberField && (fields[0] == key || fields[numberField] == key) {
			return fields, true
		}
	}
	return nil, false
}

func id(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// maxUsers bounds what is read of an image's passwd and group.
const maxUsers = 1 << 20

// readIn reads a file of a root file system from its layers, topmost first,
// without mounting them. Images are hostile: nothing is followed out of a
// layer, and only so much is read. A file that does not exist is empty.
func readIn(rootfs []mount.Mount, name string) ([]byte, error) {
	for _, dir := range layers(rootfs) {
		data, found, err := readLayer(dir, name)
		if err != nil {
			return nil, fmt.Errorf("read /%s of the image: %w", name, err)
		}
		if found {
			return data, nil
		}
	}
	return nil, nil
}

// layers returns the folders that a root file system is mounted from.
func layers(rootfs []mount.Mount) []string {
	if len(rootfs) == 0 {
		return nil
	}
	m := rootfs[len(rootfs)-1]
	if m.Type != "overlay" {
		return []string{m.Source}
	}
	var out []string
	for _, option := range m.Options {
		if dir, found := strings.CutPrefix(option, "upperdir="); found {
			out = append([]string{dir}, out...)
		}
		if dirs, found := strings.CutPrefix(option, "lowerdir="); found {
			out = append(out, strings.Split(dirs, ":")...)
		}
	}
	return out
}

func readLayer(dir, name string) (data []byte, found bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, false, err
	}
	defer root.Close()
	info, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, false, nil
	case err != nil:
		return nil, true, nil // leads out of the layer: as if it were empty
	case info.Mode()&os.ModeCharDevice != 0:
		return nil, true, nil // removed by this layer
	case !info.Mode().IsRegular():
		return nil, true, nil
	}
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, true, nil
	}
	defer file.Close() //nolint:errcheck // only read
	data, err = io.ReadAll(io.LimitReader(file, maxUsers))
	return data, true, err
}
