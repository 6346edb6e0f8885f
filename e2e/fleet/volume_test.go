//go:build e2e

package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
// off, and nowhere else; when the machine dies and comes back, the pod has its
// data.
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
	before := len(holder.pids())
	holder.cable("")
	begin := time.Now()
	lost := func() (bool, string) {
		s, err := leader.status()
		for _, h := range s.Health {
			if h.Node == holder.name && h.Gone() {
				return true, ""
			}
		}
		return false, fmt.Sprint(s.Health, err)
	}
	w.eventually(20*time.Second, "the machine is lost", lost)
	for time.Since(begin) < 22*time.Second { // an exclusive pod without a volume would have moved
		if got := w.volumes(pod); len(got) != 1 || strings.Count(got[holder.name], "starts") != 1 {
			t.Fatalf("%s of %s, which is cut off, has the volumes %q", pod, holder.name, got)
		}
		if now := len(holder.pids()); now != before {
			t.Fatalf("%d of %d containers run on %s, which is cut off", now, before, holder.name)
		}
		time.Sleep(500 * time.Millisecond)
	}
	holder.die()
	holder.revive()
	w.settled(30 * time.Second)
	after := w.ready(leader, "kv-", 3, 60*time.Second)
	for name, on := range where {
		if after[name] != on {
			t.Errorf("%s was on %s and is on %s", name, on, after[name])
		}
	}
	if got := w.volumes(pod); len(got) != 1 || strings.Count(got[holder.name], pod+" starts") != 2 {
		t.Errorf("%s has the volumes %q", pod, got)
	}
}
