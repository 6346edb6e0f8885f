//go:build e2e

package onenode

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// get fetches a URL once, on a connection of its own.
func get(url string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// clientPod is a pod from which the tests look at the others. Its container
// runs what it is told through a file in a hostPath volume.
const clientPod = `apiVersion: v1
kind: Pod
metadata: {name: client, namespace: client}
spec:
  containers:
  - name: sh
    image: busybox
    command: [sh, -c, "while sleep 0.1; do if [ -e /desk/in ]; then mv /desk/in /desk/run; sh /desk/run > /desk/out.part 2>&1; echo \"exit $?\" >> /desk/out.part; mv /desk/out.part /desk/out; fi; done"]
    volumeMounts: [{name: work, mountPath: /desk}]
  terminationGracePeriodSeconds: 0
  volumes: [{name: work, hostPath: {path: %s, type: Directory}}]
`

func TestGuestbookOverAPath(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.addCorpus("guestbook/guestbook")
	client := newClient(t, r)
	r.commit("the guestbook")
	m.start(r.dir)
	m.ready("default", 6) // 3 frontends, a master, 2 replicas
	m.ready("client", 1)

	ip := m.field("{.spec.clusterIP}", "get", "service", "frontend")
	body, err := get("http://" + ip + "/")
	if err != nil || !strings.Contains(body, "gb-frontend:v5") {
		t.Errorf("the Service frontend at %s answers %q, %v", ip, body, err)
	}
	if out := client.run("wget -q -O- http://frontend.default/"); !strings.Contains(out, "gb-frontend:v5") {
		t.Errorf("a pod that asks frontend.default by name gets %q", out)
	}
	// Real redis copies what is written to the master, found by DNS name.
	master := net.JoinHostPort(m.field("{.spec.clusterIP}", "get", "service", "redis-master"), "6379")
	replica := net.JoinHostPort(m.field("{.spec.clusterIP}", "get", "service", "redis-replica"), "6379")
	m.eventually(30*time.Second, "what is written to the master is read from a replica", func() (bool, string) {
		if out, err := redis(master, "SET", "guest", "anna"); err != nil {
			return false, out + err.Error()
		}
		out, err := redis(replica, "GET", "guest")
		return err == nil && strings.Contains(out, "anna"), out + fmt.Sprint(err)
	})
	table := m.must("get", "deployments,services,endpoints", "-o", "wide")
	for _, want := range []string{"deployment.apps/frontend ", "3/3", "service/redis-master", ":6379"} {
		if !strings.Contains(table, want) {
			t.Errorf("kubectl get lacks %q:\n%s", want, table)
		}
	}
}

// redis sends one command over a connection of its own and returns the answer.
func redis(address string, words ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	fmt.Fprintf(conn, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(w), w)
	}
	buffer := make([]byte, 1024)
	n, err := conn.Read(buffer)
	return string(buffer[:n]), err
}

func TestGuestbookGoOverHTTP(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.addCorpus("guestbook/guestbook-go")
	r.commit("the guestbook in Go")
	m.start(r.serveHTTP(), "--poll", "1s")
	m.ready("default", 6)
	controllers := m.must("get", "rc", "-o", "wide")
	for _, want := range []string{"guestbook", "redis-replica"} {
		if !strings.Contains(controllers, want) {
			t.Errorf("kubectl get rc lacks %q:\n%s", want, controllers)
		}
	}
	ip := m.field("{.spec.clusterIP}", "get", "service", "guestbook")
	if body, err := get("http://" + ip + ":3000/"); err != nil || !strings.Contains(body, "guestbook:v3") {
		t.Errorf("the guestbook answers %q, %v", body, err)
	}
	// A push is followed at the next poll.
	r.git("rm", "-q", "guestbook-service.yaml")
	pushed := r.commit("without its Service")
	m.inForce(pushed)
	m.eventually(10*time.Second, "the Service is gone", func() (bool, string) {
		out, err := m.kubectl("get", "service", "guestbook")
		return err != nil && strings.Contains(out, "NotFound"), out
	})
}

func TestKustomizeGuestbook(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.addTree("argocd-example-apps/kustomize-guestbook")
	r.commit("a kustomization")
	m.start(r.dir)
	m.ready("default", 1)
	ip := m.field("{.spec.clusterIP}", "get", "service", "kustomize-guestbook-ui")
	if body, err := get("http://" + ip + "/"); err != nil || !strings.Contains(body, "gb-frontend:v5") {
		t.Errorf("the prefixed Service answers %q, %v", body, err)
	}
}

func TestSockShop(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.addTree("argocd-example-apps/sock-shop")
	r.commit("the sock shop")
	m.start(r.dir)
	// Its probes wait three minutes, for programs that start slowly: running
	// is as far as this goes.
	want := 14
	m.eventually(60*time.Second, "all pods of the sock shop run", func() (bool, string) {
		s, err := m.status()
		running := 0
		for _, p := range s.Pods {
			if p.Phase == "Running" {
				running++
			}
		}
		return err == nil && running == want && len(s.Pods) == want, fmt.Sprintf("%d of %d run", running, len(s.Pods))
	})
	status, err := m.status()
	if err != nil {
		t.Fatal(err)
	}
	named := false
	for _, p := range status.Units[0].Problems {
		named = named || p.Warning && strings.Contains(p.Error(), "Ingress")
	}
	if !named {
		t.Errorf("the Ingress, which is not served, is not reported by name: %+v", status.Units[0].Problems)
	}
}

const helloYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 3
  selector: {matchLabels: {app: hello}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: hello:1
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec:
  selector: {app: hello}
  ports: [{port: 80, targetPort: http}]
`

func TestARollFailsNoRequest(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML})
	r.commit("hello")
	m.start(r.dir)
	m.ready("default", 3)
	url := "http://" + m.field("{.spec.clusterIP}", "get", "service", "hello") + "/"

	requests := m.requests(url)
	r.write(map[string]string{"hello.yaml": strings.ReplaceAll(helloYAML, "hello:1", "hello:2")})
	rolled := r.commit("version 2")
	m.inForce(rolled)
	m.eventually(60*time.Second, "the new version serves alone", func() (bool, string) {
		status := m.must("get", "deployment", "hello", "-o", "jsonpath={.status}")
		body, _ := get(url)
		return strings.Contains(status, `"updatedReplicas":3`) && strings.Contains(status, `"replicas":3`) &&
			strings.Contains(status, `"availableReplicas":3`) && strings.Contains(body, "version 2"), status
	})
	m.eventually(30*time.Second, "the old pods are gone", func() (bool, string) {
		n := len(m.pids())
		return n == 3, fmt.Sprint(n, " containers")
	})
	before := m.pids()

	// A commit that cannot be read changes nothing, and is told about.
	r.write(map[string]string{"hello.yaml": strings.ReplaceAll(helloYAML, "replicas: 3", "replicsa: 3")})
	refused := r.commit("a mistake")
	m.eventually(15*time.Second, "the mistake is reported", func() (bool, string) {
		out, _ := m.shoal("status")
		return strings.Contains(out, refused[:7]) && strings.Contains(out, "hello.yaml:5: spec.replicsa"), out
	})
	if events := m.must("get", "events"); !strings.Contains(events, "CommitRefused") || !strings.Contains(events, "spec.replicsa") {
		t.Errorf("no event tells about the refused commit:\n%s", events)
	}
	r.git("revert", "--no-edit", "HEAD")
	m.inForce(r.commit("nothing"))
	if after := m.pids(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("a bad commit and its revert changed what runs:\n%v\n%v", before, after)
	}
	requests("the roll")
}
