package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Mounts returns what a container mounts, in the order of its volumeMounts. env
// is the container's environment, for subPathExpr. It may be called again for
// every attempt of the container.
func (v *Volumes) Mounts(pod *corev1.Pod, c *corev1.Container, env []string) ([]runtime.Mount, error) {
	var out []runtime.Mount
	for i, m := range c.VolumeMounts {
		volume := find(pod, m.Name)
		if volume == nil {
			return nil, fmt.Errorf("volumeMount %s: the pod has no volume %q", m.MountPath, m.Name)
		}
		mount := runtime.Mount{
			Source:      v.Path(string(pod.UID), volume),
			Target:      m.MountPath,
			ReadOnly:    m.ReadOnly || volume.ConfigMap != nil || volume.Secret != nil || volume.DownwardAPI != nil || volume.Projected != nil,
			Propagation: propagation(m.MountPropagation),
			Options:     m.BindMountOptions,
		}
		var err error
		if mount.Recursive, err = recursive(m.RecursiveReadOnly); err != nil {
			return nil, fmt.Errorf("volumeMount %s: %w", m.MountPath, err)
		}
		if source := volume.PersistentVolumeClaim; source != nil {
			dir, err := os.Readlink(mount.Source)
			if err != nil {
				return nil, fmt.Errorf("volumeMount %s: the volume %q: %w", m.MountPath, m.Name, err)
			}
			mount.Source, mount.ReadOnly = dir, m.ReadOnly || source.ReadOnly
		}
		if sub := subPath(m, env); sub != "" {
			pin := filepath.Join(v.dir, string(pod.UID), "subpaths", c.Name, strconv.Itoa(i))
			if err := v.bindSubPath(pod, volume, mount.Source, sub, pin); err != nil {
				return nil, fmt.Errorf("volumeMount %s: subPath %q: %w", m.MountPath, sub, err)
			}
			mount.Source = pin
		} else if volume.HostPath != nil && (volume.HostPath.Type == nil || *volume.HostPath.Type == corev1.HostPathUnset) {
			if err := os.MkdirAll(mount.Source, 0o755); err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
				return nil, err
			}
		}
		out = append(out, mount)
	}
	return out, nil
}

func find(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

func subPath(m corev1.VolumeMount, env []string) string {
	if m.SubPathExpr != "" {
		return runtime.ExpandAll([]string{m.SubPathExpr}, env)[0]
	}
	return m.SubPath
}

func propagation(p *corev1.MountPropagationMode) string {
	if p != nil {
		switch *p {
		case corev1.MountPropagationHostToContainer:
			return "rslave"
		case corev1.MountPropagationBidirectional:
			return "rshared"
		}
	}
	return "rprivate"
}

// recursive reports whether what is mounted below a read-only volume becomes
// read-only, too, which the kernel can do from 5.12 on.
func recursive(mode *corev1.RecursiveReadOnlyMode) (bool, error) {
	if mode == nil || *mode == corev1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	able := !errors.Is(unix.MountSetattr(-1, "", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}), unix.ENOSYS)
	if !able && *mode == corev1.RecursiveReadOnlyEnabled {
		return false, errors.New("recursive read-only mounts need Linux 5.12 or newer on the node")
	}
	return able, nil
}

// bindSubPath binds a path within a volume to a pin outside of it. The kernel
// resolves the path beneath the volume, and the descriptor it gives is what is
// bound: whatever links containers make meanwhile, none leads out.
func (v *Volumes) bindSubPath(pod *corev1.Pod, volume *corev1.Volume, dir, sub, pin string) error {
	clean := filepath.Clean(sub)
	if filepath.IsAbs(sub) || clean == ".." || strings.HasPrefix(clean, "../") {
		return errors.New("it does not stay inside the volume")
	}
	fd, err := openBeneath(dir, clean)
	if errors.Is(err, fs.ErrNotExist) && (volume.EmptyDir != nil || volume.HostPath != nil || volume.PersistentVolumeClaim != nil) {
		if err := makeBeneath(dir, clean, fsGroup(pod)); err != nil {
			return err
		}
		fd, err = openBeneath(dir, clean)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // only a handle
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if err := UnmountBelow(pin); err != nil {
		return err
	}
	if err := place(pin, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", fd), pin, "", unix.MS_BIND|unix.MS_REC, "")
}

// place makes the file or folder that a pin is mounted on.
func place(pin string, folder bool) error {
	if err := os.RemoveAll(pin); err != nil {
		return err
	}
	if folder {
		return os.MkdirAll(pin, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(pin), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(pin, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func openBeneath(dir, path string) (int, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root) //nolint:errcheck // only a handle
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// makeBeneath makes a missing subPath as a folder that every user may write, as
// kubelet does.
func makeBeneath(dir, path string, group *int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(path, 0o750); err != nil {
		return err
	}
	if group != nil {
		if err := root.Lchown(path, -1, int(*group)); err != nil {
			return err
		}
	}
	return root.Chmod(path, 0o777)
}
