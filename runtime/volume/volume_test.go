package volume_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/volume"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const instance = "5b240f2d-b485-49d9-8913-d8b5a7ae8819"

func sources(volumes ...corev1.Volume) runtime.Sources {
	return runtime.Sources{
		Desired: runtime.Desired{
			Known: true,
			ConfigMaps: map[types.NamespacedName]*corev1.ConfigMap{{Namespace: "default", Name: "c"}: {
				Data: map[string]string{"a": "1", "b": "2"}, BinaryData: map[string][]byte{"bin": {0, 1}},
			}},
			Secrets: map[types.NamespacedName]*corev1.Secret{{Namespace: "default", Name: "s"}: {
				Data: map[string][]byte{"key": []byte("secret")}, StringData: map[string]string{"plain": "text"},
			}},
		},
		Pod: &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: instance, Annotations: map[string]string{"x": "y"}},
			Spec:       corev1.PodSpec{Volumes: volumes, Containers: []corev1.Container{{Name: "app"}}},
		},
		Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
	}
}

func configMap(name string) corev1.VolumeSource {
	return corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}
}

func reads(t *testing.T, path, want string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || string(b) != want {
		t.Errorf("%s: got %q, %v; want %q", path, b, err, want)
	}
}

func prepared(t *testing.T, s runtime.Sources) (*volume.Volumes, string) {
	t.Helper()
	dir := testenv.Dir(t)
	v := volume.New(dir)
	if err := v.Prepare(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Remove(instance); err != nil {
			t.Error(err)
		}
		if mounts := testenv.Mounts(dir); len(mounts) > 0 {
			t.Errorf("left mounted: %q", mounts)
		}
	})
	return v, filepath.Join(dir, "pods", instance, "volumes")
}

func TestProjections(t *testing.T) {
	mode, own, group := int32(0o400), int32(0o444), int64(3000)
	s := sources(
		corev1.Volume{Name: "config", VolumeSource: configMap("c")},
		corev1.Volume{Name: "some", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, DefaultMode: &mode,
			Items: []corev1.KeyToPath{{Key: "a", Path: "deep/er/a"}, {Key: "b", Path: "b", Mode: &own}},
		}}},
		corev1.Volume{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}},
		corev1.Volume{Name: "down", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}},
			{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.cpu"}},
			{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}},
		}}}},
		corev1.Volume{Name: "none", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "absent", Optional: new(true)}}},
	)
	s.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &group}
	v, dir := prepared(t, s)
	for path, want := range map[string]string{
		"config/a": "1", "config/bin": "\x00\x01", "some/deep/er/a": "1", "some/b": "2",
		"secret/key": "secret", "secret/plain": "text", "down/name": "web", "down/cpu": "2", "down/annotations": `x="y"`,
	} {
		reads(t, filepath.Join(dir, path), want)
	}
	for path, want := range map[string]os.FileMode{"some/deep/er/a": 0o440, "some/b": 0o444, "config/a": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v", path, info.Mode(), err)
		}
	}
	if mounts := testenv.Mounts(dir); len(mounts) != 2 { // the secrets
		t.Errorf("mounts: %q", mounts)
	}
	if err := v.Prepare(s); err != nil { // again
		t.Error(err)
	}
	if changed, err := v.Update(s); changed || err != nil {
		t.Errorf("update without a change: %t, %v", changed, err)
	}
}

// A change arrives as a whole: a reader that holds ..data sees one version only.
func TestUpdateIsAtomic(t *testing.T) {
	s := sources(corev1.Volume{Name: "config", VolumeSource: configMap("c")})
	version := func(n int) {
		text := fmt.Sprint(n)
		s.Desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{{Namespace: "default", Name: "c"}: {
			Data: map[string]string{"a": text, "b": text},
		}}
	}
	version(0)
	v, dir := prepared(t, s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			at, err := filepath.EvalSymlinks(filepath.Join(dir, "config", "..data"))
			if errors.Is(err, fs.ErrNotExist) {
				continue // swapped between the link and its target
			}
			if err != nil {
				t.Error(err)
				return
			}
			a, errA := os.ReadFile(filepath.Join(at, "a"))
			b, errB := os.ReadFile(filepath.Join(at, "b"))
			if errA == nil && errB == nil && string(a) != string(b) {
				t.Errorf("a mixture: %s, %s", a, b)
			}
			if _, err := os.ReadFile(filepath.Join(dir, "config", "a")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	for n := 1; n <= 100; n++ {
		version(n)
		if changed, err := v.Update(s); !changed || err != nil {
			t.Fatalf("update %d: %t, %v", n, changed, err)
		}
		reads(t, filepath.Join(dir, "config", "a"), fmt.Sprint(n))
	}
	close(stop)
	wg.Wait()
	// What is missing stays as it was; what is dropped goes.
	s.Desired.ConfigMaps = nil
	if changed, err := v.Update(s); changed || err != nil {
		t.Errorf("missing: %t, %v", changed, err)
	}
	reads(t, filepath.Join(dir, "config", "a"), "100")
	s.Desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{{Namespace: "default", Name: "c"}: {Data: map[string]string{"b": "x"}}}
	if changed, err := v.Update(s); !changed || err != nil {
		t.Errorf("dropped: %t, %v", changed, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "config", "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a is still there: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "config"))
	if err != nil || len(entries) != 3 { // ..data, its target, b
		t.Errorf("got %v, %v", entries, err)
	}
}

func TestMissing(t *testing.T) {
	for name, volumes := range map[string]corev1.VolumeSource{
		`volume "v": configmap "x" not found`: configMap("x"),
		`volume "v": secret "x" not found`:    {Secret: &corev1.SecretVolumeSource{SecretName: "x"}},
		`volume "v": configmap "c": key "k" not found`: {ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "p"}},
		}},
	} {
		err := volume.New(t.TempDir()).Prepare(sources(corev1.Volume{Name: "v", VolumeSource: volumes}))
		if !errors.Is(err, volume.ErrMissing) || err.Error() != name {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	for _, path := range []string{"../out", "/abs", "a/../../b", ""} {
		err := volume.New(t.TempDir()).Prepare(sources(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "a", Path: path}},
		}}}))
		if err == nil {
			t.Errorf("path %q was accepted", path)
		}
	}
}

// Links that a container planted in a volume lead nowhere.
func TestHostileVolume(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "precious"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := sources(
		corev1.Volume{Name: "config", VolumeSource: configMap("c")},
		corev1.Volume{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	)
	v, dir := prepared(t, s)
	if err := os.RemoveAll(filepath.Join(dir, "config", "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "config", "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "config", "..data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "config", "..data")); err != nil {
		t.Fatal(err)
	}
	s.Desired.ConfigMaps[types.NamespacedName{Namespace: "default", Name: "c"}] = &corev1.ConfigMap{Data: map[string]string{"precious": "overwritten"}}
	if _, err := v.Update(s); err != nil {
		t.Fatal(err)
	}
	reads(t, filepath.Join(outside, "precious"), "x")
	reads(t, filepath.Join(dir, "config", "precious"), "overwritten")

	for link, sub := range map[string]string{"escape": "escape", "dir": "dir/precious"} {
		if err := os.Symlink(outside, filepath.Join(dir, "disk", link)); err != nil {
			t.Fatal(err)
		}
		c := &corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "disk", MountPath: "/m", SubPath: sub}}}
		if mounts, err := v.Mounts(s.Pod, c, nil); err == nil {
			t.Errorf("%s: got %+v", sub, mounts)
		}
	}
	c := &corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "disk", MountPath: "/m", SubPath: "../config"}}}
	if mounts, err := v.Mounts(s.Pod, c, nil); err == nil {
		t.Errorf("got %+v", mounts)
	}
}

func TestSubPath(t *testing.T) {
	s := sources(
		corev1.Volume{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		corev1.Volume{Name: "config", VolumeSource: configMap("c")},
	)
	v, dir := prepared(t, s)
	c := &corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{
		{Name: "disk", MountPath: "/m", SubPathExpr: "logs/$(POD)"}, {Name: "config", MountPath: "/f", SubPath: "a"}, {Name: "disk", MountPath: "/all", ReadOnly: true},
	}}
	for range 2 { // every attempt asks again
		mounts, err := v.Mounts(s.Pod, c, []string{"POD=web"})
		if err != nil || len(mounts) != 3 {
			t.Fatalf("got %+v, %v", mounts, err)
		}
		if err := os.WriteFile(filepath.Join(mounts[0].Source, "x"), []byte("y"), 0o644); err != nil {
			t.Fatal(err)
		}
		reads(t, filepath.Join(dir, "disk", "logs", "web", "x"), "y")
		reads(t, mounts[1].Source, "1")
		if !mounts[1].ReadOnly || !mounts[2].ReadOnly || mounts[0].ReadOnly {
			t.Errorf("read-only: got %+v", mounts)
		}
	}
	missing := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{Name: "nope", MountPath: "/m"}}}
	if _, err := v.Mounts(s.Pod, missing, nil); err == nil || !strings.Contains(err.Error(), `no volume "nope"`) {
		t.Errorf("got %v", err)
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		kind corev1.HostPathType
		ok   bool
	}{
		{dir, corev1.HostPathDirectory, true},
		{file, corev1.HostPathDirectory, false},
		{dir + "/no", corev1.HostPathDirectory, false},
		{file, corev1.HostPathFile, true},
		{dir, corev1.HostPathFile, false},
		{dir + "/new", corev1.HostPathFileOrCreate, true},
		{dir + "/a/b", corev1.HostPathDirectoryOrCreate, true},
		{"/dev/null", corev1.HostPathCharDev, true},
		{"/dev/null", corev1.HostPathBlockDev, false},
		{file, corev1.HostPathSocket, false},
		{dir + "/whatever", corev1.HostPathUnset, true},
	} {
		kind := c.kind
		err := volume.New(t.TempDir()).Prepare(sources(corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{
			HostPath: &corev1.HostPathVolumeSource{Path: c.path, Type: &kind},
		}}))
		if (err == nil) != c.ok {
			t.Errorf("%s %s: got %v", c.kind, c.path, err)
		}
	}
}

func TestMemory(t *testing.T) {
	size := resource.MustParse("1Mi")
	_, dir := prepared(t, sources(corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{
		EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size},
	}}))
	if err := os.WriteFile(filepath.Join(dir, "m", "big"), make([]byte, 2<<20), 0o644); err == nil {
		t.Error("2 MiB fit into 1 MiB")
	}
}

// A pod with configuration of its own does not follow the newest.
func TestUpdateOfAnOlderRevision(t *testing.T) {
	s := sources(corev1.Volume{Name: "config", VolumeSource: configMap("c")})
	version := func(text string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Data: map[string]string{"a": text}}
	}
	s.Config = &runtime.Config{ConfigMaps: []*corev1.ConfigMap{version("old")}}
	newest := types.NamespacedName{Namespace: "default", Name: "c"}
	s.Desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{newest: version("newer")}
	v, dir := prepared(t, s)
	s.Desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{newest: version("newest")}
	if changed, err := v.Update(s); changed || err != nil {
		t.Errorf("updated: %t, %v", changed, err)
	}
	reads(t, filepath.Join(dir, "config", "a"), "old")
}

// The mode of an emptyDir is what its author says; a group of the pod gets in
// nevertheless.
func TestModeOfEmptyDir(t *testing.T) {
	mode := func(m int32) *int32 { return &m }
	for _, tt := range []struct {
		mode  *int32
		group *int64
		want  os.FileMode
	}{
		{nil, nil, 0o777},
		{mode(0o700), nil, 0o700},
		{mode(0o1777), nil, 0o777 | os.ModeSticky},
		{mode(0o700), new(int64), 0o770 | os.ModeSetgid},
	} {
		s := sources(corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Mode: tt.mode}}})
		s.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: tt.group}
		_, dir := prepared(t, s)
		info, err := os.Stat(filepath.Join(dir, "m"))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode() &^ os.ModeDir; got != tt.want {
			t.Errorf("%+v: got %v, want %v", tt, got, tt.want)
		}
	}
}
