package table

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/kube"
)

func TestPodColumnsAreKubernetesOwn(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-1", Namespace: "default"},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.64.0.2"}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "c", RestartCount: 3, State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"},
			}}},
		},
	}
	table, err := Of(corev1.SchemeGroupVersion.WithKind("Pod"), []runtime.Object{pod}, metav1.IncludeMetadata)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, c.Name)
	}
	if got, want := strings.Join(names, ","), "Name,Ready,Status,Restarts,Age,IP,Node,Nominated Node,Readiness Gates"; got != want {
		t.Errorf("columns %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(table.Rows[0].Cells), "[web-1 0/1 CrashLoopBackOff 3 <unknown> 10.64.0.2 n1 <none> <none>]"; got != want {
		t.Errorf("cells %s, want %s", got, want)
	}
	partial, ok := table.Rows[0].Object.Object.(*metav1.PartialObjectMetadata)
	if !ok || partial.Name != "web-1" {
		t.Errorf("row carries %T, want the metadata of web-1", table.Rows[0].Object.Object)
	}
}

func TestEveryKindHasColumns(t *testing.T) {
	for _, k := range kube.Kinds() {
		table, err := Of(k.GroupVersionKind, nil, metav1.IncludeNone)
		if err != nil || len(table.ColumnDefinitions) < 2 || table.Kind != "Table" {
			t.Errorf("%s: %v, %v", k.GroupVersionKind, table, err)
		}
	}
}

func TestFleetShowsItsSettings(t *testing.T) {
	fleet := &api.Fleet{ObjectMeta: metav1.ObjectMeta{Name: "home"}, Spec: api.FleetSpec{OnFailedRollout: api.FailedRolloutBack}}
	table, err := Of(api.FleetKind, []runtime.Object{fleet}, metav1.IncludeNone)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(table.Rows[0].Cells), "[home rollback none <unknown>]"; got != want {
		t.Errorf("got the row %s, want %s", got, want)
	}
}
