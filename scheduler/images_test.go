package scheduler

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

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

// TestUpcoming: a workload that stops a pod here before another one starts tells of
// the next one when its template has changed, and no other workload does.
func TestUpcoming(t *testing.T) {
	zero, one, none, some := intstr.FromInt32(0), intstr.FromInt32(1), intstr.FromString("0%"), intstr.FromString("25%")
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "c", Image: "new:1"}}}}
	rolling := func(surge *intstr.IntOrString) appsv1.DeploymentSpec {
		return appsv1.DeploymentSpec{Template: template, Strategy: appsv1.DeploymentStrategy{
			Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: surge},
		}}
	}
	daemons := func(surge *intstr.IntOrString) *appsv1.DaemonSet {
		return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: template, UpdateStrategy: appsv1.DaemonSetUpdateStrategy{
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: surge},
		}}}
	}
	recreate := appsv1.DeploymentSpec{Template: template, Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}}
	paused := recreate
	paused.Paused = true
	for _, test := range []struct {
		name, kind string
		value      api.KubeObject
		change     func(*api.Assignment)
		want       bool
	}{
		{"DaemonSet", "DaemonSet", daemons(&zero), nil, true},
		{"DaemonSet that starts first", "DaemonSet", daemons(&one), nil, false},
		{"StatefulSet", "StatefulSet", &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: template}}, nil, true},
		{"Pod", "Pod", &corev1.Pod{Spec: template.Spec}, nil, true},
		{"Deployment that recreates", "Deployment", &appsv1.Deployment{Spec: recreate}, nil, true},
		{"Deployment that is paused", "Deployment", &appsv1.Deployment{Spec: paused}, nil, false},
		{"Deployment without a surge", "Deployment", &appsv1.Deployment{Spec: rolling(&none)}, nil, true},
		{"Deployment with a surge", "Deployment", &appsv1.Deployment{Spec: rolling(&some)}, nil, false},
		{"the same template", "Pod", &corev1.Pod{Spec: template.Spec}, func(a *api.Assignment) { a.Pod.Revision = "new" }, false},
		{"another node", "Pod", &corev1.Pod{Spec: template.Spec}, func(a *api.Assignment) { a.Node = "n2" }, false},
		{"a pod that has ended", "Pod", &corev1.Pod{Spec: template.Spec}, func(a *api.Assignment) { a.Ended = corev1.PodFailed }, false},
		{"a workload that is gone", "Pod", &corev1.Pod{Spec: template.Spec}, func(a *api.Assignment) { a.Pod.Owner = "gone" }, false},
	} {
		test.value.SetNamespace("ns")
		test.value.SetName("w")
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "robot"}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}}}
		snapshot := api.NewSnapshot(map[string]api.Commit{"main": "c"}, []api.Object{
			{GVK: schema.GroupVersionKind{Group: groupOf(test.kind), Version: "v1", Kind: test.kind}, Value: test.value, Revision: "new"},
			{GVK: corev1.SchemeGroupVersion.WithKind("ServiceAccount"), Value: account},
		})
		a := api.Assignment{Node: "n1", Pod: api.Pod{Identity: api.Identity{Namespace: "ns", Kind: test.kind, Owner: "w", Slot: "0"}, Revision: "old", Instance: "i"}}
		if test.change != nil {
			test.change(&a)
		}
		second := a
		second.Pod.Slot, second.Pod.Instance = "1", "j"
		got := Upcoming(snapshot, api.AssignmentSet{Pods: []api.Assignment{a, second}}, "n1")
		switch {
		case len(got) > 1 || (len(got) == 1) != test.want:
			t.Errorf("%s: got %+v", test.name, got)
		case test.want && (got[0].Namespace != "ns" || got[0].Spec.Containers[0].Image != "new:1" || len(got[0].Spec.ImagePullSecrets) != 1):
			t.Errorf("%s: got %+v", test.name, got[0])
		}
	}
}
