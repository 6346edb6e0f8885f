package manifest

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestAdmissionFillsIn: what other objects say is filled in, in a copy, and the
// revision stays that of what was written.
func TestAdmissionFillsIn(t *testing.T) {
	web := Decode(File{Path: "web.yaml", Data: []byte(`apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: small}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: a, image: x}, {name: b, image: x, resources: {limits: {cpu: 200m}, requests: {memory: 1Mi}}}]}
`)})
	others := Decode(File{Path: "others.yaml", Data: []byte(`apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: polite}
value: 7
globalDefault: true
preemptionPolicy: Never
---
apiVersion: v1
kind: LimitRange
metadata: {name: small, namespace: small}
spec: {limits: [{type: Container, default: {cpu: 100m, memory: 64Mi}, defaultRequest: {cpu: 50m, memory: 32Mi}}]}
`)})
	read := func(files ...Decoded) (*corev1.PodSpec, string) {
		snapshot, problems := Assemble("main", "c1", files)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for object := range snapshot.Objects() {
			if d, ok := object.Value.(*appsv1.Deployment); ok {
				return &d.Spec.Template.Spec, object.Revision
			}
		}
		t.Fatal("it is gone")
		return nil, ""
	}
	check := func(c corev1.Container, cpu, cpuLimit, memory, memoryLimit string) {
		t.Helper()
		r := c.Resources
		got := [4]string{r.Requests.Cpu().String(), r.Limits.Cpu().String(), r.Requests.Memory().String(), r.Limits.Memory().String()}
		if want := [4]string{cpu, cpuLimit, memory, memoryLimit}; got != want {
			t.Errorf("%s has %v, want %v", c.Name, got, want)
		}
	}
	for range 2 { // the second time nothing is left of the first
		filled, revision := read(web, others)
		check(filled.Containers[0], "50m", "100m", "32Mi", "64Mi")
		check(filled.Containers[1], "200m", "200m", "1Mi", "64Mi")
		if *filled.Priority != 7 || filled.PriorityClassName != "polite" || *filled.PreemptionPolicy != corev1.PreemptNever {
			t.Errorf("priority %d of %q, %s", *filled.Priority, filled.PriorityClassName, *filled.PreemptionPolicy)
		}
		plain, same := read(web)
		check(plain.Containers[0], "0", "0", "0", "0")
		check(plain.Containers[1], "200m", "200m", "1Mi", "0")
		if *plain.Priority != 0 || plain.PriorityClassName != "" || revision != same {
			t.Errorf("priority %d of %q; revisions %s and %s", *plain.Priority, plain.PriorityClassName, revision, same)
		}
	}
}
