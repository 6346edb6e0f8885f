package scheduler

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shoal-dev/shoal/api"
)

// TestStatefulSetPods: pods carry what Kubernetes' controller gives them, and a
// claim of their own takes the place of a volume of the same name.
func TestStatefulSetPods(t *testing.T) {
	m := newModel()
	m.addNode("n1", 4, 110, "")
	m.commitSpec(spec{kind: "PersistentVolumeClaim", name: "log"})
	m.commitSpec(spec{kind: "StatefulSet", name: "db", revision: "a", replicas: 1, more: map[string]string{"start": "3", "claims": "data+log", "pvc": "log"}})
	m.schedule()
	if len(m.set.Pods) != 1 {
		t.Fatal(m.describe())
	}
	a := m.set.Pods[0]
	p, err := PodObject("fleet", m.snapshot(), a.Pod, a.Node, a.Created)
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "db-3" || p.Spec.Hostname != "db-3" || p.Spec.Subdomain != "db" || p.OwnerReferences[0].Kind != "StatefulSet" {
		t.Errorf("the pod is %s, %s.%s of %+v", p.Name, p.Spec.Hostname, p.Spec.Subdomain, p.OwnerReferences)
	}
	for key, want := range map[string]string{
		appsv1.StatefulSetPodNameLabel: "db-3", appsv1.PodIndexLabel: "3", appsv1.ControllerRevisionHashLabelKey: "db-a", "app": "db",
	} {
		if p.Labels[key] != want {
			t.Errorf("label %s is %q, want %q", key, p.Labels[key], want)
		}
	}
	var volumes []string
	for _, v := range p.Spec.Volumes {
		volumes = append(volumes, v.Name+"="+v.PersistentVolumeClaim.ClaimName)
	}
	if got, want := strings.Join(volumes, " "), "log=log-db-3 data=data-db-3"; got != want {
		t.Errorf("volumes %s, want %s", got, want)
	}
	set, _ := api.Get[*appsv1.StatefulSet](m.snapshot(), "apps", "StatefulSet", "ns", "db")
	if len(set.Spec.Template.Spec.Volumes) != 1 || set.Spec.Template.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "log" {
		t.Error("the StatefulSet of the snapshot was written to")
	}
	long := controllerRevision(strings.Repeat("a", 80), "7d4b9c6f5x")
	if problems := validation.IsValidLabelValue(long); len(problems) > 0 || !strings.HasSuffix(long, "-7d4b9c6f5x") {
		t.Errorf("%s: %v", long, problems)
	}
}

// TestVolumeObjects: claims and volumes as kubectl shows them.
func TestVolumeObjects(t *testing.T) {
	m := newModel()
	m.addNode("n1", 4, 110, "")
	m.commitSpec(spec{kind: "PersistentVolumeClaim", name: "one", more: map[string]string{"size": "3Gi"}})
	m.commitSpec(spec{kind: "PersistentVolumeClaim", name: "fast", more: map[string]string{"class": "fast"}})
	m.commitSpec(spec{kind: "Pod", name: "one", revision: "a", more: map[string]string{"pvc": "one"}})
	m.commitSpec(spec{kind: "StatefulSet", name: "db", revision: "a", replicas: 2, more: map[string]string{"claims": "data"}})
	show := func() string {
		var out []string
		for _, o := range Volumes("fleet", m.snapshot(), m.board(), m.facts, m.now) {
			switch o := o.(type) {
			case *corev1.PersistentVolume:
				c := o.Spec.Capacity[corev1.ResourceStorage]
				out = append(out, fmt.Sprintf("%s %s %s %s/%s on %s", o.Name, o.Status.Phase, c.String(), o.Spec.ClaimRef.Namespace, o.Spec.ClaimRef.Name,
					o.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0].Values[0]))
			case *corev1.PersistentVolumeClaim:
				c := o.Status.Capacity[corev1.ResourceStorage]
				out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s of %s %s", o.Name, o.Status.Phase, c.String(), o.Spec.VolumeName, *o.Spec.StorageClassName, o.Annotations[noteAnnotation])))
			}
		}
		return strings.Join(out, "\n")
	}
	expect := func(when, want string) {
		t.Helper()
		if got := show(); got != strings.ReplaceAll(want, "\t", "") {
			t.Errorf("%s:\n%s\nwant\n%s", when, got, want)
		}
	}
	m.slow = true
	m.schedule()
	expect("nothing is bound", `data-db-0 Pending 0  of local-path
		fast Pending 0  of fast ProvisioningFailed: it has the storage class "fast", and only local-path is provided
		one Pending 0  of local-path`)
	m.slow = false
	if err := m.settle(20); err != nil {
		t.Fatal(err)
	}
	var events []string
	for _, e := range volumeEvents("fleet", api.Facts{}, m.facts, m.now) {
		events = append(events, e.Regards.Name+" "+e.Reason+": "+e.Message)
	}
	if len(events) != 3 || events[2] != "one ProvisioningSucceeded: Volume ns-one-1-2 is on node n1" {
		t.Errorf("events %q", events)
	}
	bound := `ns-data-db-0-1-1 Bound 1Gi ns/data-db-0 on n1
		ns-data-db-1-1-4 Bound 1Gi ns/data-db-1 on n1
		`
	expect("all is bound", bound+`ns-one-1-2 Bound 3Gi ns/one on n1
		data-db-0 Bound 1Gi ns-data-db-0-1-1 of local-path
		data-db-1 Bound 1Gi ns-data-db-1-1-4 of local-path
		fast Pending 0  of fast ProvisioningFailed: it has the storage class "fast", and only local-path is provided
		one Bound 3Gi ns-one-1-2 of local-path`)
	delete(m.objects, "PersistentVolumeClaim/one")
	delete(m.objects, "PersistentVolumeClaim/fast")
	delete(m.objects, "Pod/one")
	delete(m.objects, "StatefulSet/db")
	if err := m.settle(20); err != nil {
		t.Fatal(err)
	}
	expect("all is out of Git", bound+`ns-one-1-2 Released 3Gi ns/one on n1
		data-db-0 Bound 1Gi ns-data-db-0-1-1 of local-path
		data-db-1 Bound 1Gi ns-data-db-1-1-4 of local-path`)
	m.runSets("removed", "n1")
	expect("the node is removed", strings.ReplaceAll(strings.ReplaceAll(bound+`ns-one-1-2 Failed 3Gi ns/one on n1
		data-db-0 Lost 1Gi ns-data-db-0-1-1 of local-path
		data-db-1 Lost 1Gi ns-data-db-1-1-4 of local-path`, "on n1", "on n1 (removed, 0123456789ab)"), "Bound", "Failed"))
}
