//go:build e2e

package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const helloYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: hello, namespace: app}
spec:
  replicas: %d
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hello
        image: hello:1
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello, namespace: app}
spec: {clusterIP: 10.96.3.3, selector: {app: hello}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each, namespace: app}
spec:
  selector: {matchLabels: {app: each}}
  template: {metadata: {labels: {app: each}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: hello, image: hello:1}]}}
`

// nodesOf returns the nodes that pods are on, sorted, each once.
func nodesOf(where map[string]string) []string {
	var out []string
	for _, n := range where {
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestFleet: pods are spread, every node routes Services to all of them, any
// node answers for the fleet; a node dies and its pods run elsewhere within
// seconds; it comes back, and the surplus goes.
func TestFleet(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	where := w.ready(w.nodes[2], "hello", 3, 40*time.Second)
	if got := nodesOf(where); len(got) != 3 {
		t.Errorf("three replicas are on %v", got)
	}
	w.ready(w.nodes[1], "each", 3, 20*time.Second)
	for _, n := range w.nodes {
		seen := map[string]bool{}
		w.eventually(20*time.Second, n.name+" routes to pods of all nodes", func() (bool, string) {
			out, err := n.get("http://10.96.3.3/")
			if err == nil {
				seen[out] = true
			}
			return len(seen) == 3, fmt.Sprint(seen, err, out)
		})
	}

	for _, name := range []string{"a follower", "the leader"} {
		leader := w.leader()
		victim := leader
		for _, n := range w.nodes {
			if name == "a follower" && n != leader {
				victim = n
			}
		}
		begin := time.Now()
		victim.die()
		eyes := w.running()[0]
		where = w.ready(eyes, "hello", 3, 15*time.Second)
		t.Logf("%s (%s) died: three pods ready elsewhere after %s", name, victim.name, time.Since(begin))
		if slices.Contains(nodesOf(where), victim.name) {
			t.Errorf("pods are on the dead node: %v", where)
		}
		for range 20 {
			if out, err := eyes.get("http://10.96.3.3/"); err != nil || !strings.Contains(out, "hello from") {
				t.Errorf("the Service after the death of %s: %v %s", name, err, out)
			}
		}
		victim.revive()
		w.settled(30 * time.Second)
		w.eventually(90*time.Second, "the surplus is gone", func() (bool, string) {
			s, err := eyes.status()
			n, last := 0, ""
			for _, p := range s.Pods {
				if strings.HasPrefix(p.Name, "hello") {
					n++
					last += fmt.Sprintf("%+v\n", p)
				}
			}
			return err == nil && n == 3, last
		})
		w.ready(eyes, "each", 3, 20*time.Second)
	}
}
