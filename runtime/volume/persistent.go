package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// discarded is the folder, below that of the volumes, of those that are being
// deleted. No namespace is called like it.
const discarded = ".discarded"

// persistentDir returns the folder of a persistent volume, see api.VolumeName.
func (v *Volumes) persistentDir(name string) string { return filepath.Join(v.persistent, name) }

// madeMark returns the file which says that the volume was made here once. It does
// not lie among the volumes: those may be on a disk of their own.
func (v *Volumes) madeMark(name string) string { return filepath.Join(v.made, name) }

// persist leads from the pod's folder to the persistent volume that its claim is
// bound to. The link stays as it is for as long as the pod is there.
func (v *Volumes) persist(s runtime.Sources, source *corev1.PersistentVolumeClaimVolumeSource, path string) error {
	if dir, err := os.Readlink(path); err == nil {
		if _, err = os.Stat(dir); err != nil {
			return fmt.Errorf("persistentvolumeclaim %q: its volume is gone: %w", source.ClaimName, err)
		}
		return nil
	}
	claim := api.VolumeClaim(s.Pod.Namespace, source.ClaimName)
	holder, bound := s.Desired.Claims[claim.String()]
	if !bound || holder.Node != s.Pod.Spec.NodeName {
		return fmt.Errorf("persistentvolumeclaim %q has no volume on this node yet: %w", source.ClaimName, ErrMissing)
	}
	name := api.VolumeName(claim, holder.Claim)
	if err := v.provide(name, fsGroup(s.Pod)); err != nil {
		return fmt.Errorf("persistentvolumeclaim %q: %w", source.ClaimName, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.Symlink(v.persistentDir(name), path)
}

// provide makes a persistent volume when it is used first. One that was made
// before and is gone is not made again: an empty volume must not take the place of
// a full one.
func (v *Volumes) provide(name string, group *int64) error {
	dir, mark := v.persistentDir(name), v.madeMark(name)
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q is no name of a volume", name)
	}
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(mark); err == nil {
			return fmt.Errorf("its volume was at %s and is not there any more; bring it back, or delete %s to begin with an empty one", dir, mark)
		}
		err = v.newFolder(dir, group)
	}
	if err != nil {
		return err
	}
	if _, err := os.Lstat(mark); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o600)
}

// newFolder makes a folder that every user may write, as local-path provisioners
// do, and has it on the disk.
func (v *Volumes) newFolder(dir string, group *int64) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if group != nil {
		if err := os.Lchown(dir, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	parent, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

// Persistent lists the persistent volumes that are here, by api.VolumeName, sorted.
func (v *Volumes) Persistent() ([]string, error) {
	namespaces, err := os.ReadDir(v.persistent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, namespace := range namespaces {
		if namespace.Name() == discarded {
			continue
		}
		volumes, err := os.ReadDir(filepath.Join(v.persistent, namespace.Name()))
		if err != nil {
			return nil, err
		}
		for _, volume := range volumes {
			out = append(out, namespace.Name()+"/"+volume.Name())
		}
	}
	slices.Sort(out)
	return out, nil
}

// Discard deletes a persistent volume with all that is in it, for ever. The caller
// knows from a quorum that it is nobody's. One that a pod of this machine still
// has, or in which anything is mounted, is kept, with an error. Discarding what
// does not exist is fine.
func (v *Volumes) Discard(name string) error {
	if !filepath.IsLocal(name) || strings.Count(name, "/") != 1 || strings.HasPrefix(name, ".") {
		return fmt.Errorf("%q is no name of a volume", name)
	}
	dir := v.persistentDir(name)
	used, err := v.user(dir)
	if err != nil {
		return err
	}
	if used != "" {
		return fmt.Errorf("the volume %s is not deleted: pod %s has it", name, used)
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("the volume %s is not deleted: something is mounted at %s", name, mounts[0])
	}
	grave := filepath.Join(v.persistent, discarded, strings.ReplaceAll(name, "/", "_"))
	if err := os.MkdirAll(filepath.Dir(grave), 0o700); err != nil {
		return err
	}
	// It goes as a whole, and what is left after a crash goes with the next one.
	if err := os.Rename(dir, grave); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(grave)); err != nil {
		return err
	}
	if err := os.Remove(v.madeMark(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(filepath.Dir(dir)) // when it was the last one of its namespace
	return nil
}

// user returns the instance of a pod that has a persistent volume, "" when none
// has.
func (v *Volumes) user(dir string) (string, error) {
	links, err := filepath.Glob(filepath.Join(v.dir, "*", "volumes", "*"))
	if err != nil {
		return "", err
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && to == dir {
			return filepath.Base(filepath.Dir(filepath.Dir(link))), nil
		}
	}
	return "", nil
}
