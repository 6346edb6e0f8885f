package scheduler

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

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
