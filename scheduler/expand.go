package scheduler

import (
	"math"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/api"
)

// A workload is one object of the snapshot that owns pods.
type workload struct {
	id       api.Identity // without a slot
	object   api.Object
	template *corev1.PodTemplateSpec
	revision string   // of the template in Git now
	target   template // what new pods are made from
	want     int      // number of pods; for a DaemonSet the number of matching nodes
	slots    []string
	// beyond is how many pods more are asked for than there can be.
	beyond int
	queue  int // of a Job: how many of its pods may wait for a node, see share
	// each are the claims for volumes of which every pod has its own.
	each   []corev1.PersistentVolumeClaim
	scaled bool // want is what an autoscaler decided, not what stands in Git
	// exclusive says that of one identity only one pod may run, under a claim.
	exclusive bool
	decide    func(w *workload, pods []*pod, in *input) change
}

// expand lists the workloads of a snapshot, sorted by key. The nodes say which
// pods of DaemonSets there are, and how many pods there can be at the most.
func expand(snapshot api.Snapshot, nodes []node) []workload {
	most := mostPods(nodes)
	var out []workload
	for object := range snapshot.Objects() {
		switch value := object.Value.(type) {
		case *corev1.Pod:
			out = append(out, expandPod(object))
		case *appsv1.Deployment:
			out = append(out, expandDeployment(value, object))
		case *appsv1.ReplicaSet:
			out = append(out, expandReplicas(object, &value.Spec.Template, value.Spec.Replicas, value.Spec.MinReadySeconds))
		case *corev1.ReplicationController:
			out = append(out, expandReplicas(object, value.Spec.Template, value.Spec.Replicas, value.Spec.MinReadySeconds))
		case *appsv1.DaemonSet:
			out = append(out, expandDaemonSet(value, object, nodes))
		case *appsv1.StatefulSet:
			out = append(out, expandStatefulSet(value, object))
		case *batchv1.Job:
			out = append(out, expandJob(value, object))
		case *batchv1.CronJob:
			out = append(out, expandCronJob(value, object))
		}
	}
	for i := range out {
		out[i].bound(most)
	}
	return out
}

// bound keeps the number of pods within what there may be.
func (w *workload) bound(most int) {
	if w.id.Kind != "DaemonSet" && w.want > most {
		w.beyond, w.want = w.want-most, most
	}
}

// mostPods is how many pods of one workload there may be: as many as all nodes
// can hold, and some that wait. A number with some zeros too many must not fill
// the memory of every node.
func mostPods(nodes []node) int {
	most := int64(waitingPods)
	for i := range nodes {
		most += min(nodes[i].info.Allocatable.Pods().Value(), 1<<20)
	}
	return int(min(most, math.MaxInt32))
}

// newWorkload fills in what all kinds share.
func newWorkload(object api.Object, template *corev1.PodTemplateSpec) workload {
	w := workload{
		id: api.Identity{
			Namespace: object.Value.GetNamespace(),
			Kind:      object.GVK.Kind,
			Owner:     object.Value.GetName(),
		},
		object:   object,
		template: template,
		revision: object.Revision,
		queue:    waitingPods,
	}
	w.target = w.current()
	return w
}

func (w *workload) setReplicas(replicas *int32) {
	w.want = 1
	if replicas != nil {
		w.want = int(max(*replicas, 0))
	}
}

// freeSlots returns n ordinals that no pod in use occupies, lowest first.
func freeSlots(n int, inUse []*pod) []string {
	taken := make(map[string]bool, len(inUse))
	for _, p := range inUse {
		taken[p.Slot] = true
	}
	out := make([]string, 0, max(n, 0))
	for i := 0; len(out) < n; i++ {
		if slot := strconv.Itoa(i); !taken[slot] {
			out = append(out, slot)
		}
	}
	return out
}

// templateOf returns the pod template of a workload object, nil for objects
// that own no pods. A bare Pod is its own template.
func templateOf(object api.Object) *corev1.PodTemplateSpec {
	switch value := object.Value.(type) {
	case *corev1.Pod:
		return &corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: value.Labels, Annotations: value.Annotations},
			Spec:       value.Spec,
		}
	case *appsv1.Deployment:
		return &value.Spec.Template
	case *appsv1.ReplicaSet:
		return &value.Spec.Template
	case *corev1.ReplicationController:
		return value.Spec.Template
	case *appsv1.DaemonSet:
		return &value.Spec.Template
	case *appsv1.StatefulSet:
		return &value.Spec.Template
	case *batchv1.Job:
		return &value.Spec.Template
	case *batchv1.CronJob:
		return &value.Spec.JobTemplate.Spec.Template
	}
	return nil
}
