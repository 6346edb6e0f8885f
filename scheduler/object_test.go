package scheduler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
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

// TestJobObjects: pods of Jobs and the Jobs of a CronJob carry what Kubernetes'
// controllers give them, and find each other by it.
func TestJobObjects(t *testing.T) {
	m := newModel()
	m.addNode("n1", 4, 110, "")
	m.commitSpec(spec{kind: "Job", name: "map", revision: "a", more: map[string]string{"completions": "2", "mode": "Indexed"}})
	m.commitSpec(spec{kind: "CronJob", name: "tick", revision: "a", more: map[string]string{"schedule": "0_*_*_*_*", "zone": "Asia/Tokyo"}})
	m.schedule()
	m.now = m.now.Add(time.Hour)
	m.schedule()
	jobs := map[string]*batchv1.Job{}
	for _, o := range Workloads("fleet", m.snapshot(), func(string, api.Commit) api.Snapshot { return api.Snapshot{} }, m.board(), m.facts, m.now) {
		if job, ok := o.(*batchv1.Job); ok {
			jobs[job.Name] = job
		}
	}
	run := jobs["tick-29454540"]
	if run == nil || run.OwnerReferences[0].Kind != "CronJob" || run.OwnerReferences[0].Name != "tick" || run.Annotations[batchv1.CronJobScheduledTimestampAnnotation] != "2026-01-01T22:00:00+09:00" {
		t.Fatalf("the run of the CronJob is %+v", run)
	}
	for _, a := range m.set.Pods {
		p, err := PodObject("fleet", m.snapshot(), a.Pod, a.Node, a.Created)
		if err != nil {
			t.Fatal(err)
		}
		job := jobs[p.OwnerReferences[0].Name]
		if job == nil || p.OwnerReferences[0].Kind != "Job" || p.OwnerReferences[0].UID != job.UID {
			t.Fatalf("%s is owned by %+v", a.Pod, p.OwnerReferences)
		}
		for key, value := range job.Spec.Selector.MatchLabels {
			if p.Labels[key] != value || job.Spec.Template.Labels[key] != value {
				t.Errorf("%s has the labels %v, its Job selects %v", a.Pod, p.Labels, job.Spec.Selector)
			}
		}
		if a.Pod.Kind != "Job" {
			if p.Labels["job-name"] != "tick-29454540" || p.Spec.Hostname != "" || len(p.Spec.Containers[0].Env) > 0 {
				t.Errorf("%s became %+v", a.Pod, p)
			}
			continue
		}
		index := a.Pod.Slot
		env := p.Spec.Containers[0].Env
		if p.Spec.Hostname != "map-"+index || p.Labels[batchv1.JobCompletionIndexAnnotation] != index || p.Annotations[batchv1.JobCompletionIndexAnnotation] != index ||
			!strings.HasPrefix(p.Name, "map-"+index+"-") || len(env) != 1 || env[0].Name != indexVariable ||
			env[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
			t.Errorf("%s became %+v", a.Pod, p)
		}
	}
	job, _ := api.Get[*batchv1.Job](m.snapshot(), "batch", "Job", "ns", "map")
	if len(job.Spec.Template.Spec.Containers[0].Env) > 0 || len(job.Spec.Template.Labels) != 1 || job.Spec.Selector != nil {
		t.Errorf("the Job of the snapshot was written to: %+v", job.Spec)
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
