//go:build e2e

package onenode

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const talkYAML = `apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {tier: back}}
data: {greeting: good morning}
---
apiVersion: v1
kind: Secret
metadata: {name: token}
stringData: {token: c2VjcmV0LWNhbmFyeQ}
---
apiVersion: v1
kind: Pod
metadata: {name: talk, labels: {app: talk}}
spec:
  hostname: talker
  initContainers:
  - {name: first, image: busybox, command: [sh, -c, "echo initialized"]}
  containers:
  - name: a
    image: busybox
    command: [sh, -c, "echo \"$GREETING from $POD at $IP, $(cat /etc/secret/token | wc -c) bytes\"; i=0; while sleep 0.3; do i=$((i+1)); echo line $i; done"]
    env:
    - {name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts: [{name: secret, mountPath: /etc/secret}]
    resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 32Mi}}
  - {name: b, image: busybox, command: [sh, -c, "hostname; echo second; exec sleep 100000"]}
  volumes: [{name: secret, secret: {secretName: token}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: c, image: busybox, command: [sleep, "100000"]}]
`

func TestKubectl(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"hello.yaml": helloYAML, "talk.yaml": talkYAML})
	commit := r.commit("hello and talk")
	m.start(r.dir)
	m.ready("default", 5)

	m.eventually(60*time.Second, "the usage of all pods is known", func() (bool, string) {
		out, err := m.kubectl("top", "pods", "--no-headers")
		return err == nil && strings.Count(out, "\n") == 5, out
	})

	tests := []struct {
		args string
		want []string // regular expressions, each on one line of the output
	}{
		{"get pods", []string{`^NAME +READY +STATUS +RESTARTS +AGE`, `^talk +2/2 +Running +0`}},
		{"get pods -o wide", []string{`^talk .* 10\.64\.0\.\d+ +n1`}},
		{"get pods -A -l app=talk --no-headers", []string{`^default +talk `}},
		{"get pod talk -o yaml", []string{`phase: Running`, `name: GREETING`}},
		{"get pod talk -o json", []string{`"uid": "[0-9a-f-]{36}"`}},
		{"get pods --field-selector spec.nodeName=n1,status.phase=Running -o name", []string{`^pod/talk$`}},
		{"get deploy,rs,ds", []string{`^deployment.apps/hello +3/3 +3 +3`, `^replicaset.apps/hello-\w+ +3 +3 +3`, `^daemonset.apps/agent +1 +1 +1 +1 +1`}},
		{"get svc,endpoints,endpointslices", []string{`^service/hello +ClusterIP +10\.`, `^endpoints/hello +10\.64\.0\.\d+:8080,`, `^endpointslice.discovery.k8s.io/hello-\w+ +IPv4 +8080`}},
		{"get cm,secrets", []string{`^configmap/settings +1`, `^secret/token +Opaque +1`}},
		{"get ns", []string{`^default +Active`}},
		{"get nodes -o wide", []string{`^n1 +Ready .* containerd://`}},
		{"get all", []string{`^pod/talk`, `^service/hello`, `^deployment.apps/hello`}},
		{"get events", []string{`Scheduled +pod/talk`, `Started`, `CommitAccepted`}},
		{"describe pod talk", []string{`^Status: +Running`, `Started container a`, `GREETING: +<set to the key 'greeting'`, `first:`}},
		{"describe deploy hello", []string{`^Replicas: +3 desired \| 3 updated \| 3 total \| 3 available`, `NewReplicaSet: +hello-`}},
		{"describe svc hello", []string{`^Endpoints: +10\.64\.0\.`}},
		{"describe node n1", []string{`Ready +True`, `default +talk +10m`}},
		{"logs talk -c a --tail=-1", []string{`^good morning from talk at 10\.64\.0\.\d+, 18 bytes`, `^line 1$`}},
		{"logs talk -c a --tail=1 --timestamps", []string{`^20\d\d-\d\d-\d\dT.* line \d+$`}},
		{"logs talk -c b", []string{`^talker$`, `^second$`}},
		{"logs talk -c first", []string{`^initialized$`}},
		{"logs talk -c a --since=1h --limit-bytes=20", []string{`^good morning from ta`}},
		{"logs -l app=hello --prefix", []string{`\[pod/hello-.*\] .*listening`}},
		{"rollout status deploy/hello", []string{`successfully rolled out`}},
		{"rollout history deploy/hello", []string{`^1 `}},
		{"wait --for=condition=Ready pod/talk --timeout=10s", []string{`condition met`}},
		{"api-resources", []string{`^pods +po +v1 +true +Pod$`, `^deployments +deploy +apps/v1`}},
		{"explain pod.spec.containers.image", []string{`FIELD: image <string>`}},
		{"top nodes", []string{`^n1 +\d+m +\d+% +\d+Mi +\d+%`}},
		{"top pods --sum", []string{`^talk +\d+m +\d+Mi`, `^hello-\w+-\w+ +\d+m +\d+Mi`}},
		{"top pod talk --containers", []string{`^talk +a +\d+m +\d+Mi`, `^talk +b +\d+m +\d+Mi`}},
		{"top pods -l app=talk --no-headers", []string{`^talk `}},
		{"version", []string{`Server Version: v1\.37`}},
		{"auth can-i list pods", []string{`^yes`}},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			out, err := m.kubectl(strings.Fields(tt.args)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range tt.want {
				if !regexp.MustCompile("(?m)" + want).MatchString(out) {
					t.Errorf("no line matches %q in\n%s", want, out)
				}
			}
		})
	}
	at := " at " + commit[:7]
	refused := []struct{ args, want string }{
		{"scale deploy hello --replicas=5", "Deployment default/hello is hello.yaml:1" + at + "; change it there"},
		{"delete pod -l app=hello", "belongs to Deployment default/hello, which is hello.yaml:1" + at},
		{"label cm settings x=y", "ConfigMap default/settings is talk.yaml:1" + at},
		{"create deployment x --image=y", "this API is read-only: commit the change to " + r.dir},
		{"auth can-i create pods", "no"},
		{"get pod nobody", `pods "nobody" not found`},
		{"get unicorns", "the server doesn't have a resource type"},
		{"logs talk", "choose one of: [a b first]"},
	}
	for _, tt := range refused {
		t.Run(tt.args, func(t *testing.T) {
			if strings.HasPrefix(tt.args, "logs talk") {
				// kubectl picks the first container by itself; the API does not.
				raw, err := m.kubectl("get", "--raw", "/api/v1/namespaces/default/pods/talk/log")
				if err == nil || !strings.Contains(raw, tt.want) {
					t.Errorf("got %v %q, want an error with %q", err, raw, tt.want)
				}
				return
			}
			out, err := m.kubectl(strings.Fields(tt.args)...)
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("got %v\n%s\nwant an error with %q", err, out, tt.want)
			}
		})
	}
	t.Run("a Secret's data is not served", func(t *testing.T) {
		for _, args := range [][]string{{"get", "secret", "token", "-o", "yaml"}, {"describe", "secret", "token"}, {"get", "secrets", "-A", "-o", "json"}} {
			out := m.must(args...)
			if strings.Contains(out, "c2VjcmV0") || strings.Contains(out, "YzJWamNtVjA") || !strings.Contains(out, "token") {
				t.Errorf("kubectl %v shows\n%s", args, out)
			}
		}
	})
	t.Run("get -w", func(t *testing.T) { m.watches(t, r) })
	t.Run("logs -f and --previous", func(t *testing.T) { m.followsLogs(t) })
	t.Run("no certificate, no answer", func(t *testing.T) {
		for path, want := range map[string]int{"/api/v1/pods": 401, "/metrics": 401, "/healthz": 200, "/readyz": 200} {
			response, err := m.apiClient(t).Get(fmt.Sprintf("https://127.0.0.1:%d%s", m.port, path))
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("GET %s without a certificate: %s, want %d", path, response.Status, want)
			}
		}
	})
}

// lines runs kubectl and hands over what it prints, line by line, until the
// test ends.
func (m *machine) lines(t *testing.T, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig", m.kubeconfig}, args...)...)
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1000)
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	go func() {
		defer close(out)
		for s := bufio.NewScanner(pipe); s.Scan(); {
			out <- s.Text()
		}
	}()
	return out
}

// expect waits for a line that matches.
func expect(t *testing.T, lines <-chan string, pattern string) {
	t.Helper()
	var seen []string
	timeout := time.After(20 * time.Second)
	for {
		select {
		case line, open := <-lines:
			seen = append(seen, line)
			if regexp.MustCompile(pattern).MatchString(line) {
				return
			}
			if !open {
				t.Fatalf("ended without a line that matches %q:\n%s", pattern, strings.Join(seen, "\n"))
			}
		case <-timeout:
			t.Fatalf("no line matches %q within 20 s:\n%s", pattern, strings.Join(seen, "\n"))
		}
	}
}

func (m *machine) watches(t *testing.T, r *repo) {
	lines := m.lines(t, "get", "pods", "-w", "-l", "app=late")
	yaml := "apiVersion: v1\nkind: Pod\nmetadata: {name: late, labels: {app: late}}\nspec:\n  terminationGracePeriodSeconds: 0\n" +
		"  containers: [{name: c, image: busybox, command: [sleep, \"1000\"]}]\n"
	r.write(map[string]string{"late.yaml": yaml})
	r.commit("one more")
	expect(t, lines, `^late +1/1 +Running`)
	r.write(map[string]string{"late.yaml": ""})
	r.commit("and gone")
	expect(t, lines, `^late +\d/1 +Terminating`)
	m.eventually(20*time.Second, "the pod is gone", func() (bool, string) {
		out, err := m.kubectl("get", "pod", "late")
		return err != nil && strings.Contains(out, "not found"), out
	})
}

func (m *machine) followsLogs(t *testing.T) {
	lines := m.lines(t, "logs", "-f", "talk", "-c", "a")
	expect(t, lines, `^good morning`)
	expect(t, lines, `^line 3$`)
	id := strings.TrimPrefix(m.field(`{.status.containerStatuses[?(@.name=="a")].containerID}`, "get", "pod", "talk"), "containerd://")
	if err := exec.Command("kill", "-9", m.pids()[id]).Run(); err != nil {
		t.Fatal(err)
	}
	m.eventually(20*time.Second, "the container has restarted", func() (bool, string) {
		n := m.field(`{.status.containerStatuses[?(@.name=="a")].restartCount}`, "get", "pod", "talk")
		return n == "1", n + " restarts"
	})
	if out := m.must("logs", "talk", "-c", "a", "--previous"); !strings.Contains(out, "line 3") {
		t.Errorf("logs --previous lacks what the former container said:\n%s", out)
	}
	if last := m.field(`{.status.containerStatuses[?(@.name=="a")].lastState.terminated.exitCode}`, "get", "pod", "talk"); last != "137" {
		t.Errorf("the last state says exit code %q, want 137", last)
	}
}
