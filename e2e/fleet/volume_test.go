//go:build e2e

package fleet

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/daemon"
)

// Every start of the container writes a line into the pod's volume.
const volumeYAML = `apiVersion: apps/v1
kind: StatefulSet
metadata: {name: kv, namespace: app}
spec:
  replicas: 3
  serviceName: kv
  selector: {matchLabels: {app: kv}}
  template:
    metadata: {labels: {app: kv}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: kv
        image: busybox:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "echo $HOSTNAME starts >> /data/log; exec sleep 1000000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`

// An exclusive pod without a volume that would rather be on one machine.
const moverYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: mover, namespace: app}
spec:
  strategy: {type: Recreate}
  selector: {matchLabels: {app: mover}}
  template:
    metadata: {labels: {app: mover}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [%s]}]}}
      containers:
      - {name: c, image: busybox:1, imagePullPolicy: IfNotPresent, command: [sleep, "1000000"]}
`

// volumes returns what is in the volumes of a pod, by machine.
func (w *world) volumes(pod string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, n := range w.nodes {
		logs, err := filepath.Glob(filepath.Join(n.state, "volumes/app/data-"+pod+"-*/log"))
		if err != nil {
			w.t.Fatal(err)
		}
		for _, file := range logs {
			raw, err := os.ReadFile(file)
			if err != nil {
				w.t.Fatal(err)
			}
			out[n.name] += string(raw)
		}
	}
	return out
}

// TestVolumeStaysWithItsNode: a pod with a volume runs on when its machine is cut
// off, and nowhere else, while an exclusive pod without one moves; when the machine
// dies and comes back, the pod has its data.
func TestVolumeStaysWithItsNode(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"kv.yaml": volumeYAML})
	w.commit("kv")
	where := w.ready(w.running()[0], "kv-", 3, 60*time.Second)
	leader := w.leader()
	var holder *node
	pod := ""
	for name, on := range where {
		for _, n := range w.nodes {
			if n.name == on && n != leader {
				holder, pod = n, name
			}
		}
	}
	if holder == nil {
		t.Fatalf("all pods are on the leader: %v", where)
	}
	w.write(map[string]string{"mover.yaml": fmt.Sprintf(moverYAML, holder.name)})
	w.commit("mover")
	for name, on := range w.ready(leader, "mover", 1, 30*time.Second) {
		if on != holder.name {
			t.Fatalf("%s is on %s, not on %s, which it prefers", name, on, holder.name)
		}
	}
	kept := w.processes("kv")
	holder.cable("")
	w.eventually(40*time.Second, "the exclusive pod without a volume has moved, and the one with a volume has not", func() (bool, string) {
		if got := w.volumes(pod); len(got) != 1 || strings.Count(got[holder.name], "starts") != 1 {
			t.Fatalf("%s of %s, which is cut off, has the volumes %q", pod, holder.name, got)
		}
		s, err := leader.status()
		moved := slices.ContainsFunc(s.Pods, func(p daemon.PodStatus) bool {
			return strings.HasPrefix(p.Name, "mover") && p.Node != holder.name && p.Ready
		})
		return err == nil && moved, fmt.Sprint(s.Health, s.Pods, err)
	})
	if now := w.processes("kv"); !maps.Equal(now, kept) {
		t.Fatalf("pods with volumes were touched: processes were\n%v\nand are\n%v", kept, now)
	}
	holder.die()
	holder.revive()
	w.settled(30 * time.Second)
	// Until the machine has looked at its containers, the fleet goes by what it said
	// before it died: the volume tells when the pod has begun again.
	w.eventually(60*time.Second, "the pod begins again, with its data", func() (bool, string) {
		got := w.volumes(pod)
		return len(got) == 1 && strings.Count(got[holder.name], pod+" starts") == 2, fmt.Sprintf("%q", got)
	})
	if after := w.ready(leader, "kv-", 3, 60*time.Second); !maps.Equal(after, where) {
		t.Errorf("the pods were on %v and are on %v", where, after)
	}
}
