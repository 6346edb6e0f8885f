package runtime_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// TestPullStory: a pod that waits for its image says how far it is, here and in
// the digest that other nodes get.
func TestPullStory(t *testing.T) {
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "web:1"}}}}
	pod := runtime.Pod{Assignment: api.Assignment{Pod: api.Pod{Instance: "i"}}, Object: object}
	desired := runtime.Desired{Known: true, Pods: []runtime.Pod{pod}}
	for _, test := range []struct {
		image runtime.Image
		want  string
	}{
		{runtime.Image{}, ""},
		{runtime.Image{State: runtime.ImagePulling}, ""},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1"}, ""},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1", Queued: true}, `Pulling image "web:1": waiting until other images have been pulled`},
		{runtime.Image{State: runtime.ImagePulling, Ref: "web:1", Progress: runtime.Progress{Done: 3 << 20, Total: 10 << 20}}, `Pulling image "web:1": 3.0 MiB of 10.0 MiB`},
	} {
		observed := runtime.ObservedPod{Instance: "i", Images: map[string]runtime.Image{"app": test.image}}
		status := runtime.Status(desired, observed, corev1.PodStatus{}, time.Unix(1, 0))
		if got := status.ContainerStatuses[0].State.Waiting; got.Reason != runtime.WaitingCreating || got.Message != test.want {
			t.Errorf("%+v: got %+v, want %q", test.image, got, test.want)
		}
		digest := runtime.State(desired, observed, status)
		if _, shown := runtime.Containers(&object.Spec, digest); shown[0].State.Waiting.Message != test.want {
			t.Errorf("%+v on other nodes: got %+v, want %q", test.image, shown[0].State.Waiting, test.want)
		}
	}
}

// TestCredentialsKey: the same credentials have the same key whatever their order,
// and others have another one.
func TestCredentialsKey(t *testing.T) {
	a, b := runtime.Credential{Host: "r", Username: "u", Password: "p"}, runtime.Credential{Host: "r", Username: "v", Password: "p"}
	key := runtime.CredentialsKey([]runtime.Credential{a, b})
	if runtime.CredentialsKey(nil) != "" || key != runtime.CredentialsKey([]runtime.Credential{b, a, a}) ||
		key == runtime.CredentialsKey([]runtime.Credential{a}) || key == "" {
		t.Errorf("got %q", key)
	}
}
