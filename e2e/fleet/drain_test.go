//go:build e2e

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const guardedYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "busybox:1", imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web, namespace: app}
spec:
  maxUnavailable: 0
  selector: {matchLabels: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: lone, namespace: app}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: lone}}
  template:
    metadata: {labels: {app: lone}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "busybox:1", imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: lone, namespace: app}
spec:
  minAvailable: %d
  selector: {matchLabels: {app: lone}}
`

// TestDrainWithBudgets drains the machine on which most runs: a workload that may
// lack no pod moves without lacking one, and what cannot be moved within its
// budget stays, and says why, until the budget allows it.
func TestDrainWithBudgets(t *testing.T) {
	w := newWorld(t, 2)
	w.write(map[string]string{"guarded.yaml": fmt.Sprintf(guardedYAML, 1)})
	w.commit("guarded")
	eyes := w.nodes[0]
	w.ready(eyes, "web-", 2, 30*time.Second)
	var drained *node
	for _, name := range w.ready(eyes, "lone-", 1, 30*time.Second) {
		drained = w.nodes[slices.IndexFunc(w.nodes, func(n *node) bool { return n.name == name })]
	}
	drained.must("drain")
	least := 2
	took := w.eventually(60*time.Second, "the pods that may move have moved", func() (bool, string) {
		s, err := eyes.status()
		ready, left := 0, 0
		for _, p := range s.Pods {
			if !strings.HasPrefix(p.Name, "web-") {
				continue
			}
			if p.Ready {
				ready++
			}
			if p.Node == drained.name {
				left++
			}
		}
		if err == nil {
			least = min(least, ready)
		}
		return err == nil && left == 0 && ready == 2, fmt.Sprintf("%v %+v", err, s.Pods)
	})
	t.Logf("moved after %s", took.Round(100*time.Millisecond))
	if least < 2 {
		t.Errorf("only %d pods of web were ready for a while", least)
	}
	want := "drain of " + drained.name + " waits: PodDisruptionBudget app/lone allows no disruption"
	for _, n := range w.nodes {
		w.eventually(10*time.Second, n.name+" says what the drain waits for", func() (bool, string) {
			out, err := n.shoal("status")
			return err == nil && strings.Contains(out, want), out
		})
	}
	config := eyes.kubeconfig(t)
	for _, args := range [][]string{{"describe", "node", drained.name}, {"get", "events", "-A"}} {
		w.eventually(10*time.Second, "kubectl "+strings.Join(args, " ")+" says it too", func() (bool, string) {
			out, err := eyes.kubectl(config, args...)
			return err == nil && strings.Contains(out, "DrainWaits"), out
		})
	}
	if out, err := eyes.kubectl(config, "get", "pdb", "-n", "app"); err != nil || !strings.Contains(out, "lone   1               N/A               0") {
		t.Errorf("%v\n%s", err, out)
	}
	if where := w.ready(eyes, "lone-", 1, 5*time.Second); !slices.Contains(values(where), drained.name) {
		t.Errorf("lone has moved against its budget: %v", where)
	}

	w.write(map[string]string{"guarded.yaml": fmt.Sprintf(guardedYAML, 0)})
	w.commit("the budget allows it")
	w.eventually(60*time.Second, "the last pod has moved, and nothing waits", func() (bool, string) {
		s, err := eyes.status()
		for _, p := range s.Pods {
			if strings.HasPrefix(p.Name, "lone-") && p.Node != drained.name && p.Ready {
				return err == nil && !slices.Contains(s.Alarms, want), fmt.Sprint(s.Alarms)
			}
		}
		return false, fmt.Sprintf("%v %+v", err, s.Pods)
	})
}

func values(of map[string]string) []string {
	var out []string
	for _, v := range of {
		out = append(out, v)
	}
	return out
}
