package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/volume"
)

// persistent is a pod of node n1 with the claim "data" as its volume "v".
func persistent(claims map[string]api.ClaimHolder) runtime.Sources {
	s := sources(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}})
	s.Pod.Spec.NodeName = "n1"
	s.Desired.Claims = claims
	return s
}

func boundTo(node string, index uint64) map[string]api.ClaimHolder {
	return map[string]api.ClaimHolder{"default/PersistentVolumeClaim/data": {Node: node, Claim: api.Claim{Epoch: 1, Index: index}}}
}

func mounts(t *testing.T, v *volume.Volumes, s runtime.Sources, m corev1.VolumeMount) runtime.Mount {
	t.Helper()
	m.Name, m.MountPath = "v", "/data"
	out, err := v.Mounts(s.Pod, &corev1.Container{Name: "app", VolumeMounts: []corev1.VolumeMount{m}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// What a pod writes stays when it goes, and the next pod of the claim finds it.
func TestPersistentVolumesOutlivePods(t *testing.T) {
	state := testenv.Dir(t)
	v := volume.New(state)
	s := persistent(boundTo("n1", 7))
	dir := filepath.Join(state, "volumes/default/data-1-7")
	for attempt := range 2 {
		if err := v.Prepare(s); err != nil {
			t.Fatal(err)
		}
		if err := v.Prepare(s); err != nil {
			t.Fatal("again:", err)
		}
		if got := mounts(t, v, s, corev1.VolumeMount{}); got.Source != dir || got.ReadOnly {
			t.Errorf("it mounts %+v", got)
		}
		sub := mounts(t, v, s, corev1.VolumeMount{SubPath: "deep/er", ReadOnly: true})
		if !sub.ReadOnly {
			t.Errorf("it mounts %+v", sub)
		}
		if attempt == 0 {
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o777 {
				t.Errorf("the folder is %v, %v", info.Mode(), err)
			}
			if err := os.WriteFile(filepath.Join(sub.Source, "f"), []byte("kept"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		reads(t, filepath.Join(sub.Source, "f"), "kept")
		if err := v.Remove(instance); err != nil {
			t.Fatal(err)
		}
		reads(t, filepath.Join(dir, "deep/er/f"), "kept")
	}
	// By another claim of the same name it is another volume.
	s.Desired.Claims = boundTo("n1", 9)
	if err := v.Prepare(s); err != nil {
		t.Fatal(err)
	}
	if got := mounts(t, v, s, corev1.VolumeMount{}); got.Source != filepath.Join(state, "volumes/default/data-1-9") {
		t.Errorf("it mounts %+v", got)
	}
	// A pod keeps what it has, whatever is known later.
	s.Desired.Claims = nil
	if err := v.Prepare(s); err != nil {
		t.Error(err)
	}
	s.Pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	if got := mounts(t, v, s, corev1.VolumeMount{}); !got.ReadOnly {
		t.Errorf("it mounts %+v", got)
	}
	if err := v.Remove(instance); err != nil {
		t.Fatal(err)
	}
	if mounted := testenv.Mounts(state); len(mounted) > 0 {
		t.Errorf("left mounted: %q", mounted)
	}
}

func TestPersistentVolumesOfOthersAreNotMade(t *testing.T) {
	for name, claims := range map[string]map[string]api.ClaimHolder{"not known": nil, "not bound": {}, "elsewhere": boundTo("n2", 7)} {
		state := testenv.Dir(t)
		v := volume.New(state)
		if err := v.Prepare(persistent(claims)); !errors.Is(err, volume.ErrMissing) {
			t.Errorf("%s: %v", name, err)
		}
		if entries, err := os.ReadDir(filepath.Join(state, "volumes")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: made %v, %v", name, entries, err)
		}
	}
}

// A disk that is not mounted, for instance, must not look like an empty volume.
func TestALostVolumeIsNotReplaced(t *testing.T) {
	state := testenv.Dir(t)
	v := volume.New(state)
	s := persistent(boundTo("n1", 7))
	if err := v.Prepare(s); err != nil {
		t.Fatal(err)
	}
	away := filepath.Join(state, "away")
	if err := os.Rename(filepath.Join(state, "volumes"), away); err != nil {
		t.Fatal(err)
	}
	if err := v.Prepare(s); err == nil || !strings.Contains(err.Error(), "its volume is gone") {
		t.Errorf("the pod that has it: %v", err)
	}
	if err := v.Remove(instance); err != nil {
		t.Fatal(err)
	}
	if err := v.Prepare(s); err == nil || !strings.Contains(err.Error(), "is not there any more") {
		t.Errorf("the next pod: %v", err)
	}
	if err := os.Rename(away, filepath.Join(state, "volumes")); err != nil {
		t.Fatal(err)
	}
	if err := v.Prepare(s); err != nil {
		t.Error("brought back:", err)
	}
	if err := v.Remove(instance); err != nil {
		t.Fatal(err)
	}
}

// Nothing but the named volume is deleted, and not while anything has it.
func TestDiscard(t *testing.T) {
	state := testenv.Dir(t)
	v := volume.New(state)
	s := persistent(boundTo("n1", 7))
	prepare := func() {
		t.Helper()
		if err := v.Prepare(s); err != nil {
			t.Fatal(err)
		}
	}
	prepare()
	dir := filepath.Join(state, "volumes/default/data-1-7")
	if err := os.Mkdir(filepath.Join(state, "precious"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(state, "precious"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	held := func(want ...string) {
		t.Helper()
		got, err := v.Persistent()
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("volumes (-want +got): %s, %v", diff, err)
		}
	}
	held("default/data-1-7")
	if err := v.Discard("default/data-1-7"); err == nil || !strings.Contains(err.Error(), instance) {
		t.Errorf("while a pod has it: %v", err)
	}
	if err := v.Remove(instance); err != nil {
		t.Fatal(err)
	}
	inside := filepath.Join(dir, "inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(filepath.Join(state, "precious"), inside, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := v.Discard("default/data-1-7")
	if unmount := unix.Unmount(inside, 0); unmount != nil {
		t.Fatal(unmount)
	}
	if err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("while something is mounted in it: %v", err)
	}
	for _, name := range []string{"", "default", "../pods", "/etc/x", "default/../../precious", ".discarded/x", "a/b/c"} {
		if err := v.Discard(name); err == nil {
			t.Errorf("%q was deleted", name)
		}
	}
	held("default/data-1-7")
	for range 2 {
		if err := v.Discard("default/data-1-7"); err != nil {
			t.Error(err)
		}
		held()
	}
	if _, err := os.Stat(filepath.Join(state, "precious")); err != nil {
		t.Error("what a link in the volume leads to was deleted:", err)
	}
	prepare() // it is forgotten, and may be made anew
	held("default/data-1-7")
	if err := v.Remove(instance); err != nil {
		t.Fatal(err)
	}
}
