//go:build e2e

package onenode

import (
	"testing"
	"time"
)

const burnerYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: burner}
spec:
  replicas: 1
  selector: {matchLabels: {app: burner}}
  template:
    metadata: {labels: {app: burner}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: burner
        image: busybox
        command: [httpd, -f, -p, "8080", -h, /www]
        volumeMounts: [{name: www, mountPath: /www}]
        resources: {requests: {cpu: 50m}}
        readinessProbe: {httpGet: {path: /well, port: 8080}, periodSeconds: 1}
      - name: idle
        image: busybox
        command: [sleep, "100000"]
        resources: {requests: {cpu: 400m}}
      volumes: [{name: www, configMap: {name: burner, items: [{key: well, path: well}, {key: burn, path: cgi-bin/burn, mode: 493}]}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: burner}
data:
  well: "yes"
  burn: |
    #!/bin/sh
    i=0
    while [ $i -lt 20000 ]; do i=$((i+1)); done
    printf 'Content-Type: text/plain\n\nburnt\n'
---
apiVersion: v1
kind: Service
metadata: {name: burner}
spec: {clusterIP: 10.96.7.9, selector: {app: burner}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: burner}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: burner}
  minReplicas: 1
  maxReplicas: 3
  metrics:
  - type: ContainerResource
    containerResource: {name: cpu, container: burner, target: {type: Utilization, averageUtilization: 50}}
  - type: Resource
    resource: {name: memory, target: {type: AverageValue, averageValue: 1Gi}}
  behavior: {scaleDown: {stabilizationWindowSeconds: 10}}
`

// TestAutoscale puts load on a Service whose pods burn processor time for every
// request: their number goes up, and down again when the load ends.
func TestAutoscale(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	r.write(map[string]string{"burner.yaml": burnerYAML})
	r.commit("a burner")
	m.start(r.dir)
	m.ready("default", 1)
	stop := m.requests("http://10.96.7.9/cgi-bin/burn")
	begin := time.Now()
	m.eventually(60*time.Second, "three pods carry the load", func() (bool, string) {
		out, err := m.kubectl("get", "deployment", "burner", "-o", "jsonpath={.spec.replicas}/{.status.readyReplicas}")
		if err != nil || out != "3/3" {
			status, _ := m.kubectl("describe", "hpa", "burner")
			return false, out + "\n" + status
		}
		return true, ""
	})
	t.Logf("scaled up after %s", time.Since(begin).Round(time.Second))
	m.shows(t, []shown{
		{"get hpa burner", []string{`^burner +Deployment/burner +cpu: \d+%/50%, memory: [\w.]+/1Gi +1 +3 +3 +\d+s`}},
		{"describe hpa burner", []string{
			`AbleToScale +True`, `ScalingActive +True +ValidMetricFound`, `SuccessfulRescale .*New size: 3; reason: cpu container resource utilization`,
		}},
		{"get deployment burner", []string{`^burner +3/3 +3 +3`}},
	})
	stop("scaling up")
	begin = time.Now()
	m.eventually(80*time.Second, "one pod is left when nobody asks", func() (bool, string) {
		out, err := m.kubectl("get", "pods", "-l", "app=burner", "--no-headers")
		status, _ := m.kubectl("get", "hpa", "burner")
		replicas, _ := m.kubectl("get", "deployment", "burner", "-o", "jsonpath={.spec.replicas}/{.status.replicas}")
		return err == nil && replicas == "1/1", out + status + replicas
	})
	t.Logf("scaled down after %s", time.Since(begin).Round(time.Second))
	m.shows(t, []shown{{"describe hpa burner", []string{`SuccessfulRescale .*New size: 1; reason: All metrics below target`}}})
}
