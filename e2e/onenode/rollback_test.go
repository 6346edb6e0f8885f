//go:build e2e

package onenode

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const rollbackYAML = `apiVersion: fleet.shoal.dev/v1alpha1
kind: Fleet
metadata: {name: e2e}
spec: {onFailedRollout: rollback}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: hello}
data: {message: %s}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hello
  annotations: {fleet.shoal.dev/roll-on-config: "true"}
spec:
  replicas: 2
  progressDeadlineSeconds: 6
  selector: {matchLabels: {app: hello}}
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      containers:
      - name: hello
        image: %s
        imagePullPolicy: IfNotPresent
        env: [{name: MESSAGE, valueFrom: {configMapKeyRef: {name: hello, key: message}}}]
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

// TestRollback: a commit with an image that nobody has and with other
// configuration. It is rolled back, everybody says so, and what started anew
// meanwhile has the configuration of before; no request fails. A commit that
// changes the configuration alone rolls out what the fleet went back from.
func TestRollback(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": fmt.Sprintf(rollbackYAML, "first", "hello:1")})
	good := r.commit("first")
	m.start(r.dir)
	m.ready("default", 2)
	url := "http://" + m.field("{.spec.clusterIP}", "get", "service", "hello") + "/"

	requests := m.requests(url)
	r.write(map[string]string{"hello.yaml": fmt.Sprintf(rollbackYAML, "second", "127.0.0.1:1/none:1")})
	bad := r.commit("second")
	m.inForce(bad)
	m.eventually(60*time.Second, "the rollout is rolled back", func() (bool, string) {
		out, err := m.shoal("status")
		return err == nil && strings.Contains(out, "Deployment default/hello is rolled back"), out
	})
	m.ready("default", 2)
	if out, err := m.kubectl("rollout", "status", "deployment/hello", "--timeout=10s"); err == nil || !strings.Contains(out, "exceeded its progress deadline") {
		t.Errorf("rollout status says %v: %s", err, out)
	}
	m.shows(t, []shown{
		{"get fleet", []string{`^e2e +rollback +none`}},
		{"get fleets -o yaml", []string{`^    onFailedRollout: rollback$`}},
		{"describe fleet e2e", []string{`^  On Failed Rollout: +rollback$`}},
		{"get deployment hello", []string{`^hello +2/2 +0 +2`}},
		{"describe deployment hello", []string{`Progressing +False +ProgressDeadlineExceeded`, `ProgressDeadlineExceeded.*made no progress`, `DeploymentRollback.*` + good[:7]}},
		{"rollout history deployment hello", []string{`^1 `, `^2 `}},
		{"get pods", []string{`^hello-\w+-\w+ +1/1 +Running`}},
	})
	stopped := m.pids()
	m.stop(syscall.SIGKILL)
	m.restart()
	m.ready("default", 2)
	for range 20 {
		if body, err := get(url); err != nil || !strings.Contains(body, "first") {
			t.Fatalf("after the rollback: %q, %v", body, err)
		}
	}
	if now := m.pids(); fmt.Sprint(now) != fmt.Sprint(stopped) {
		t.Errorf("a restart of the daemon changed what runs:\n%v\n%v", stopped, now)
	}

	r.write(map[string]string{"hello.yaml": fmt.Sprintf(rollbackYAML, "third", "hello:1")})
	m.inForce(r.commit("third"))
	m.eventually(60*time.Second, "the new configuration serves alone", func() (bool, string) {
		out, err := m.kubectl("rollout", "status", "deployment/hello", "--timeout=1s")
		return err == nil && strings.Contains(out, "successfully rolled out"), out
	})
	m.ready("default", 2)
	for range 20 {
		if body, err := get(url); err != nil || !strings.Contains(body, "third") {
			t.Fatalf("after the commit that changes configuration: %q, %v", body, err)
		}
	}
	requests("the rollback")

	// What runs is compared with what is on disk, and not committed yet.
	if out, err := m.shoal("plan", r.dir); err != nil || !strings.HasPrefix(out, "0 pods start, 0 stop, 2 stay") {
		t.Errorf("a plan of what is in force: %v\n%s", err, out)
	}
	r.write(map[string]string{"hello.yaml": fmt.Sprintf(rollbackYAML, "fourth", "hello:1")})
	var exit *exec.ExitError
	if out, err := m.shoal("plan", r.dir); !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(out, "~ ConfigMap default/hello") || !strings.Contains(out, "2 pods start, 2 stop, 0 stay") {
		t.Errorf("a plan of other configuration: %v\n%s", err, out)
	}
	if out, _ := m.shoal("status"); strings.Contains(out, "rolled back") {
		t.Errorf("the alarm stays:\n%s", out)
	}
}
