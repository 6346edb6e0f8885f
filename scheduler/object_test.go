package scheduler

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

func TestPodObject(t *testing.T) {
	m := newModel()
	m.addNode("n1", 4, 110, "")
	m.commitSpec(spec{kind: "Deployment", name: "web", revision: "a", replicas: 1})
	m.commitSpec(spec{kind: "DaemonSet", name: "agent", revision: "a"})
	m.commitSpec(spec{kind: "Pod", name: "one", revision: "a"})
	m.schedule()
	if len(m.set.Pods) != 3 {
		t.Fatalf("want three pods:\n%s", m.describe())
	}
	for _, a := range m.set.Pods {
		got, err := PodObject("fleet", m.snapshot(), a.Pod, a.Node, a.Created)
		if err != nil {
			t.Fatal(err)
		}
		owner := ""
		if len(got.OwnerReferences) > 0 {
			owner = got.OwnerReferences[0].Kind + "/" + got.OwnerReferences[0].Name
		}
		want := map[string]string{"Deployment": "ReplicaSet/web-a", "DaemonSet": "DaemonSet/agent", "Pod": ""}[a.Pod.Kind]
		if owner != want || got.Name != a.Pod.Name() || string(got.UID) != a.Pod.Instance || got.Spec.NodeName != "n1" || got.Labels["app"] != a.Pod.Owner {
			t.Errorf("%s became %+v owned by %q", a.Pod, got.ObjectMeta, owner)
		}
		if tolerant := len(got.Spec.Tolerations) > 0; tolerant != (a.Pod.Kind == "DaemonSet") {
			t.Errorf("%s has tolerations: %v", a.Pod, got.Spec.Tolerations)
		}
		got.Labels["app"] = "changed" // what is handed out is the caller's
		missing := a.Pod
		missing.Revision = "z"
		if _, err := PodObject("fleet", m.snapshot(), missing, "n1", a.Created); err == nil || !strings.Contains(err.Error(), "has revision a in this commit, not z") {
			t.Errorf("a template of another revision: %v", err)
		}
		missing.Owner = "nobody"
		if _, err := PodObject("fleet", m.snapshot(), missing, "n1", a.Created); err == nil || !strings.Contains(err.Error(), "is not in this commit") {
			t.Errorf("a workload that is not there: %v", err)
		}
	}
	d, _ := api.Get[*appsv1.Deployment](m.snapshot(), "apps", "Deployment", "ns", "web")
	if d.Spec.Template.Labels["app"] != "web" {
		t.Error("a pod's labels were shared with its template")
	}
}

// TestWorkloads looks at a Deployment before, in the middle of and after a roll,
// as kubectl would.
func TestWorkloads(t *testing.T) {
	m := newModel()
	m.addNode("n1", 4, 110, "")
	s := spec{kind: "Deployment", name: "web", revision: "a", replicas: 2, surge: "1", unavailable: "0", history: 5, deadline: 60}
	m.commitSpec(s)
	old := m.snapshot()
	show := func() string {
		at := func(string, api.Commit) api.Snapshot { return old }
		var out []string
		for _, o := range Workloads("fleet", m.snapshot(), at, m.board(), m.facts, m.now) {
			switch o := o.(type) {
			case *appsv1.Deployment:
				st := o.Status
				line := fmt.Sprintf("deployment gen %d=%d: %d total %d updated %d ready %d available %d not", o.Generation, st.ObservedGeneration,
					st.Replicas, st.UpdatedReplicas, st.ReadyReplicas, st.AvailableReplicas, st.UnavailableReplicas)
				for _, c := range st.Conditions {
					if c.Status != corev1.ConditionTrue {
						line += " !" + string(c.Type)
					} else {
						line += " " + c.Reason
					}
				}
				out = append(out, line)
			case *appsv1.ReplicaSet:
				out = append(out, fmt.Sprintf("%s rev %s: %d, %d ready", o.Name, o.Annotations[revisionAnnotation], *o.Spec.Replicas, o.Status.ReadyReplicas))
			}
		}
		return strings.Join(out, "; ")
	}
	expect := func(when, want string) {
		t.Helper()
		if got := show(); got != want {
			t.Errorf("%s:\n got %s\nwant %s", when, got, want)
		}
	}
	m.schedule()
	expect("assigned", "deployment gen 1=1: 2 total 2 updated 0 ready 0 available 2 not !Available ReplicaSetUpdated; web-a rev 1: 2, 0 ready")
	if err := m.settle(10); err != nil {
		t.Fatal(err)
	}
	expect("settled", "deployment gen 1=1: 2 total 2 updated 2 ready 2 available 0 not MinimumReplicasAvailable NewReplicaSetAvailable; web-a rev 1: 2, 2 ready")
	s.revision = "bad1"
	m.commitSpec(s)
	m.schedule()
	m.obey()
	expect("rolling", "deployment gen 2=2: 3 total 1 updated 2 ready 2 available 0 not MinimumReplicasAvailable ReplicaSetUpdated; web-a rev 1: 2, 2 ready; web-bad1 rev 2: 1, 0 ready")
	m.schedule() // sees the new pod, which is progress
	m.now = m.now.Add(61e9)
	m.schedule()
	expect("late", "deployment gen 2=2: 3 total 1 updated 2 ready 2 available 0 not MinimumReplicasAvailable !Progressing; web-a rev 1: 2, 2 ready; web-bad1 rev 2: 1, 0 ready")
	var events []string
	before := m.facts
	before.Rollouts = map[string]api.Rollout{}
	for _, e := range Events("fleet", api.AssignmentSet{}, m.set, before, m.facts, m.now) {
		events = append(events, e.Reason)
	}
	if got := strings.Join(events, " "); strings.Count(got, "SuccessfulCreate") != 3 || strings.Count(got, "Scheduled") != 3 || !strings.Contains(got, "ProgressDeadlineExceeded") {
		t.Errorf("events: %s", got)
	}
}
