//go:build e2e

package onenode

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const servicesYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: hello
        image: hello:1
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http, nodePort: 30123}]}
---
apiVersion: v1
kind: Service
metadata: {name: fixed}
spec: {clusterIP: 10.96.7.7, selector: {app: web}, ports: [{port: 8000, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: echo}, ports: [{name: echo, protocol: UDP, port: 7, targetPort: echo}]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo, labels: {app: echo}}
spec:
  hostname: echo-0
  subdomain: peers
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: hello:1, args: [-listen, ":8080", -udp, ":7007"], ports: [{name: echo, protocol: UDP, containerPort: 7007}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: ported}
spec:
  containers: [{name: c, image: hello:1, ports: [{containerPort: 8080, hostPort: 8888}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: onhost}
spec:
  hostNetwork: true
  containers: [{name: c, image: hello:1, args: ["-listen", ":8999"], ports: [{containerPort: 8999}]}]
`

func TestServices(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	client := newClient(t, r)
	r.write(map[string]string{"services.yaml": servicesYAML})
	r.commit("services")
	m.start(r.dir)
	m.ready("default", 5)
	m.ready("client", 1)

	t.Run("from the node", func(t *testing.T) {
		for _, url := range []string{
			"http://10.96.7.7:8000/", "http://127.0.0.1:30123/", "http://192.0.2.10:30123/",
			"http://127.0.0.1:8888/", "http://192.0.2.10:8888/", "http://127.0.0.1:8999/",
		} {
			// A pod is shown as ready a moment before the rules lead to it.
			m.eventually(5*time.Second, url+" answers", func() (bool, string) {
				body, err := get(url)
				return err == nil && strings.Contains(body, "hello from"), fmt.Sprint(body, err)
			})
		}
		start := time.Now()
		if body, err := get("http://" + m.field("{.spec.clusterIP}", "get", "service", "nobody") + "/"); err == nil || time.Since(start) > 2*time.Second {
			t.Errorf("a Service without pods answers %q after %s, want a refusal at once", body, time.Since(start))
		}
	})
	t.Run("UDP", func(t *testing.T) {
		conn, err := net.Dial("udp", m.field("{.spec.clusterIP}", "get", "service", "echo")+":7")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		buffer := make([]byte, 100)
		m.eventually(10*time.Second, "a packet comes back", func() (bool, string) {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			if _, err := conn.Write([]byte("ping")); err != nil {
				return false, err.Error()
			}
			n, err := conn.Read(buffer)
			return err == nil && string(buffer[:n]) == "ping", fmt.Sprint(err)
		})
	})
	t.Run("both pods are reached, and a sticky client only one", func(t *testing.T) {
		for service, want := range map[string]bool{"web": true, "sticky": false} {
			hosts := map[string]bool{}
			for range 30 {
				body, err := get("http://" + m.field("{.spec.clusterIP}", "get", "service", service) + "/")
				if err != nil {
					t.Fatal(err)
				}
				hosts[strings.Fields(body)[2]] = true
			}
			if got := len(hosts) == 2; got != want {
				t.Errorf("30 connections to %s reached %v", service, hosts)
			}
		}
	})
	tests := []struct{ name, script, want string }{
		{"by name", "wget -q -O- http://web.default/", "hello from"},
		{"by full name", "wget -q -O- http://web.default.svc.cluster.local/", "hello from"},
		{"a NodePort of the node", "wget -q -O- http://192.0.2.10:30123/", "hello from"},
		{"a hostPort of the node", "wget -q -O- http://192.0.2.10:8888/", "hello from"},
		{"an address", "nslookup web.default.svc.cluster.local 10.96.0.10", m.field("{.spec.clusterIP}", "get", "service", "web")},
		{"a headless Service", "nslookup peers.default.svc.cluster.local 10.96.0.10 | grep -c 'Address.*10.64'", "2"},
		{"no such name", "nslookup nope.default.svc.cluster.local 10.96.0.10", "NXDOMAIN"},
		{"nobody answers", "wget -q -O- http://nobody.default/", "refused"},
		{"search path", "cat /etc/resolv.conf", "search client.svc.cluster.local svc.cluster.local cluster.local"},
		{"a pod is in its own hosts file", "grep client /etc/hosts", "client"},
	}
	for _, tt := range tests {
		t.Run("from a pod: "+tt.name, func(t *testing.T) {
			var got string
			m.eventually(15*time.Second, tt.script, func() (bool, string) {
				got = client.run(tt.script)
				return strings.Contains(got, tt.want), got
			})
		})
	}
	t.Run("a pod reaches itself through its Service", func(t *testing.T) {
		// The echo pod asks the Service that leads to nobody but itself.
		r.write(map[string]string{"self.yaml": `apiVersion: v1
kind: Pod
metadata: {name: self, labels: {app: self}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: web, image: hello:1}
  - {name: ask, image: busybox, command: [sh, -c, "while ! wget -q -O- http://self.default/; do sleep 0.2; done; sleep 100000"]}
---
apiVersion: v1
kind: Service
metadata: {name: self}
spec: {selector: {app: self}, ports: [{port: 80, targetPort: 8080}]}
`})
		r.commit("self")
		m.eventually(30*time.Second, "the pod has reached itself", func() (bool, string) {
			out, _ := m.kubectl("logs", "self", "-c", "ask")
			return strings.Contains(out, "hello from self"), out
		})
	})
	t.Run("rules that somebody flushed come back", func(t *testing.T) {
		if !full() {
			t.Log("the check runs every 30 s; this is part of SHOAL_E2E=full")
			return
		}
		if out, err := exec.Command("iptables", "-t", "nat", "-F").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m.eventually(60*time.Second, "the Service answers again", func() (bool, string) {
			body, err := get("http://10.96.7.7:8000/")
			return err == nil, fmt.Sprint(body, err)
		})
	})
}
