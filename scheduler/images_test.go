package scheduler

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// TestImages: every image of every template is named once, and what has no pods
// names none.
func TestImages(t *testing.T) {
	m := newModel()
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "a", replicas: 1})
	m.commitSpec(spec{kind: "DaemonSet", name: "agent", revision: "a"})
	m.commitSpec(spec{kind: "CronJob", name: "tick", revision: "a", more: map[string]string{"schedule": "0_*_*_*_*"}})
	web, _ := api.Get[*appsv1.Deployment](m.snapshot(), "apps", "Deployment", "ns", "web")
	web.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init", Image: "init:1"}}
	web.Spec.Template.Spec.Containers = []corev1.Container{{Name: "a", Image: "web:1"}, {Name: "b", Image: "side:1"}}
	tick, _ := m.snapshot().Lookup(api.Key{Group: "batch", Kind: "CronJob", Namespace: "ns", Name: "tick"})
	templateOf(tick).Spec.Containers = []corev1.Container{{Name: "a", Image: "side:1"}}
	agent, _ := api.Get[*appsv1.DaemonSet](m.snapshot(), "apps", "DaemonSet", "ns", "agent")
	agent.Spec.Template.Spec.Containers = []corev1.Container{{Name: "a", Image: "agent:1"}}
	if got, want := Images(m.snapshot()), []string{"agent:1", "init:1", "side:1", "web:1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Images(api.Snapshot{}); len(got) > 0 {
		t.Errorf("of nothing: got %q", got)
	}
}

// TestServiceAccountSecrets: a pod that names no secrets for its images gets those
// of its service account, which is named default where it names none.
func TestServiceAccountSecrets(t *testing.T) {
	account := func(name string) api.Object {
		return api.Object{GVK: corev1.SchemeGroupVersion.WithKind("ServiceAccount"), Value: &corev1.ServiceAccount{
			ObjectMeta:       metav1.ObjectMeta{Namespace: "ns", Name: name},
			ImagePullSecrets: []corev1.LocalObjectReference{{Name: "of-" + name}},
		}}
	}
	snapshot := api.NewSnapshot(map[string]api.Commit{"main": "c"}, []api.Object{account("default"), account("robot")})
	for _, test := range []struct{ name, namespace, account, own, want string }{
		{"that of its account", "ns", "robot", "", "of-robot"},
		{"that of the default account", "ns", "", "", "of-default"},
		{"its own are all that it gets", "ns", "robot", "mine", "mine"},
		{"an account that is not there", "ns", "nobody", "", ""},
		{"another namespace", "other", "robot", "", ""},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace}, Spec: corev1.PodSpec{ServiceAccountName: test.account}}
		if test.own != "" {
			pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: test.own}}
		}
		addPullSecrets(snapshot, pod)
		got := ""
		for _, ref := range pod.Spec.ImagePullSecrets {
			got += ref.Name
		}
		if got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}
