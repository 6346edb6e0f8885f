package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// ErrMissing is wrapped by errors about a ConfigMap, Secret or key that does not
// exist (yet).
var ErrMissing = errors.New("not found")

// Volumes makes, updates and removes the volumes of pods. It may be used
// concurrently for different instances.
type Volumes struct {
	dir        string // <state>/pods
	persistent string // <state>/volumes
	made       string // <state>/volumes.made

	mu      sync.Mutex
	payload map[string]payload // by path of the volume: what was written last
}

// New returns the volumes below a state directory.
func New(stateDir string) *Volumes {
	return &Volumes{
		dir: filepath.Join(stateDir, "pods"), persistent: filepath.Join(stateDir, "volumes"), made: filepath.Join(stateDir, "volumes.made"),
		payload: map[string]payload{},
	}
}

// Path returns where a volume of a pod is on this machine; of a persistent one,
// the link to it.
func (v *Volumes) Path(instance string, volume *corev1.Volume) string {
	if volume.HostPath != nil {
		return volume.HostPath.Path
	}
	return filepath.Join(v.dir, instance, "volumes", volume.Name)
}

// Folder returns where the volumes of an instance are.
func (v *Volumes) Folder(instance string) string { return filepath.Join(v.dir, instance) }

// Prepare makes every volume of a pod, or completes them. It is idempotent.
// The error wraps ErrMissing when a source does not exist.
func (v *Volumes) Prepare(s runtime.Sources) error {
	for i := range s.Pod.Spec.Volumes {
		volume := &s.Pod.Spec.Volumes[i]
		if err := v.prepare(s, volume); err != nil {
			return fmt.Errorf("volume %q: %w", volume.Name, err)
		}
	}
	return nil
}

func (v *Volumes) prepare(s runtime.Sources, volume *corev1.Volume) error {
	path := v.Path(string(s.Pod.UID), volume)
	switch {
	case volume.HostPath != nil:
		return hostPath(volume.HostPath)
	case volume.EmptyDir != nil:
		return v.emptyDir(s.Pod, path, volume.EmptyDir)
	case volume.PersistentVolumeClaim != nil:
		return v.persist(s, volume.PersistentVolumeClaim, path)
	case projects(volume):
		_, err := v.project(s, volume, path)
		return err
	}
	return fmt.Errorf("its type is not supported on this node")
}

// Update brings the volumes made from other objects up to date and reports
// whether any changed. What is missing now stays as it was.
func (v *Volumes) Update(s runtime.Sources) (changed bool, err error) {
	var errs []error
	for i := range s.Pod.Spec.Volumes {
		volume := &s.Pod.Spec.Volumes[i]
		if !projects(volume) {
			continue
		}
		did, err := v.project(s, volume, v.Path(string(s.Pod.UID), volume))
		if err != nil && !errors.Is(err, ErrMissing) {
			errs = append(errs, fmt.Errorf("volume %q: %w", volume.Name, err))
		}
		changed = changed || did
	}
	return changed, errors.Join(errs...)
}

// Projects reports whether any volume of the pod is made from other objects.
func Projects(spec *corev1.PodSpec) bool {
	for i := range spec.Volumes {
		if projects(&spec.Volumes[i]) {
			return true
		}
	}
	return false
}

func projects(volume *corev1.Volume) bool {
	return volume.ConfigMap != nil || volume.Secret != nil || volume.DownwardAPI != nil || volume.Projected != nil
}

// project writes a volume made from other objects, when it differs from what
// is there.
func (v *Volumes) project(s runtime.Sources, volume *corev1.Volume, path string) (changed bool, err error) {
	want, err := collect(s, volume)
	if err != nil {
		return false, err
	}
	v.mu.Lock()
	have, known := v.payload[path]
	v.mu.Unlock()
	if known && maps.EqualFunc(have, want, file.equal) {
		if _, err := os.Lstat(filepath.Join(path, dataLink)); err == nil {
			return false, nil
		}
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return false, err
	}
	if holdsSecrets(volume) {
		if err := MountTmpfs(path, 0, 0o755); err != nil {
			return false, err
		}
	}
	changed, err = write(path, want, fsGroup(s.Pod))
	if err != nil {
		return false, err
	}
	v.mu.Lock()
	v.payload[path] = want
	v.mu.Unlock()
	return changed, nil
}

func holdsSecrets(volume *corev1.Volume) bool {
	if volume.Secret != nil {
		return true
	}
	if volume.Projected != nil {
		for _, source := range volume.Projected.Sources {
			if source.Secret != nil || source.ServiceAccountToken != nil {
				return true
			}
		}
	}
	return false
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

func (v *Volumes) emptyDir(pod *corev1.Pod, path string, source *corev1.EmptyDirVolumeSource) error {
	_, err := os.Lstat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return err
	}
	switch source.Medium {
	case corev1.StorageMediumMemory:
		size := int64(0)
		if source.SizeLimit != nil {
			size = source.SizeLimit.Value()
		}
		if err := MountTmpfs(path, size, 0o777); err != nil {
			return err
		}
		fresh = true // chmod below is harmless on a tmpfs that was there
	case corev1.StorageMediumDefault:
	default:
		return fmt.Errorf("medium %q is not supported", source.Medium)
	}
	if !fresh {
		return nil
	}
	mode := os.FileMode(0o777)
	if source.Mode != nil {
		mode = os.FileMode(*source.Mode) & os.ModePerm
		if *source.Mode&0o1000 != 0 {
			mode |= os.ModeSticky
		}
	}
	if group := fsGroup(pod); group != nil {
		if err := os.Lchown(path, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid | 0o070
	}
	return os.Chmod(path, mode)
}

// Remove unmounts and deletes everything of a pod's volumes, but for the persistent
// ones. Removing what does not exist is fine.
func (v *Volumes) Remove(instance string) error {
	dir := filepath.Join(v.dir, instance)
	if err := RemoveUnmounted(dir); err != nil {
		return err
	}
	v.mu.Lock()
	maps.DeleteFunc(v.payload, func(path string, _ payload) bool {
		return bytes.HasPrefix([]byte(path), []byte(dir+string(filepath.Separator)))
	})
	v.mu.Unlock()
	return nil
}

// List returns the instances that have volumes here, sorted.
func (v *Volumes) List() ([]string, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}
