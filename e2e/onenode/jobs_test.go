//go:build e2e

package onenode

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
)

const jobsYAML = `apiVersion: batch/v1
kind: Job
metadata: {name: parts}
spec:
  completions: 3
  parallelism: 3
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: part
        image: busybox
        command: [sh, -c, "echo part $JOB_COMPLETION_INDEX on $(hostname); [ $JOB_COMPLETION_INDEX != 1 ] || [ -e /desk/tried ] || { touch /desk/tried; exit 3; }"]
        volumeMounts: [{name: desk, mountPath: /desk}]
      volumes: [{name: desk, hostPath: {path: %s, type: Directory}}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "* * * * *"
  timeZone: Europe/Berlin
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: tick, image: busybox, command: [sh, -c, "echo ticked"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: helped}
spec:
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - name: helper
        image: busybox
        restartPolicy: Always
        command: [sh, -c, "trap 'echo helper ends after the work; exit 5' TERM; mkdir -p /www && echo help > /www/index.html && httpd -p 8080 -h /www; while :; do sleep 0.1; done"]
        startupProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
      - {name: last, image: busybox, command: [sh, -c, "wget -qO- http://127.0.0.1:8080/ && echo before the work"]}
      containers:
      - {name: work, image: busybox, command: [sh, -c, "wget -qO- http://127.0.0.1:8080/ && echo the work"]}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hopeless}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - name: c
        image: busybox
        command: [sh, -c, "echo no use; echo tried >> /desk/hopeless; exit 9"]
        volumeMounts: [{name: desk, mountPath: /desk}]
      volumes: [{name: desk, hostPath: {path: %s, type: Directory}}]
`

// TestJobs runs a Job of three parts of which one fails once, one that fails, and
// a CronJob, and looks at them with kubectl. What has ended stays so when the
// daemon is killed.
func TestJobs(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	desk := testenv.Dir(t)
	if err := os.Chmod(desk, 0o777); err != nil {
		t.Fatal(err)
	}
	r := newRepo(t)
	r.write(map[string]string{"jobs.yaml": fmt.Sprintf(jobsYAML, desk, desk)})
	commit := r.commit("jobs")
	m.start(r.dir)
	m.must("wait", "--for=condition=Complete", "job/parts", "--timeout=60s")
	m.must("wait", "--for=condition=Failed", "job/hopeless", "--timeout=60s")
	m.must("wait", "--for=condition=Complete", "job/helped", "--timeout=60s")
	if _, err := os.Stat(filepath.Join(desk, "tried")); err != nil {
		t.Error("part 1 did not fail once:", err)
	}
	m.eventually(100*time.Second, "the CronJob has run", func() (bool, string) {
		out, err := m.kubectl("get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}")
		return err == nil && out != "", out
	})
	run := ""
	for name := range strings.FieldsSeq(m.must("get", "jobs", "-o", "name")) {
		if strings.HasPrefix(name, "job.batch/tick-") {
			run = strings.TrimPrefix(name, "job.batch/")
		}
	}
	m.shows(t, []shown{
		{"get jobs", []string{`^parts +Complete +3/3 +\d+s`, `^hopeless +Failed +0/1`, `^tick-\d{8} +Complete +1/1`}},
		{"get cronjobs", []string{`^tick +\* \* \* \* \* +Europe/Berlin +False +\d`}},
		{"get pods -l batch.kubernetes.io/job-name=parts", []string{`^parts-0-\w{5} +0/1 +Completed`, `^parts-1-\w{5} +0/1 +Error`, `^parts-1-\w{5} +0/1 +Completed`}},
		{"get job parts -o jsonpath={.status.completedIndexes}/{.status.succeeded}/{.status.failed}", []string{`^0-2/3/1$`}},
		{"describe job parts", []string{`^Completed Indexes: +0-2`, `^Pods Statuses: +0 Active.* 3 Succeeded / 1 Failed`, `SuccessfulCreate`, `Completed +.*Job completed`}},
		{"describe job hopeless", []string{`BackoffLimitExceeded +.*reached the specified backoff limit`}},
		{"describe cronjob tick", []string{`^Schedule: +\* \* \* \* \*`, `^Last Schedule Time: +\w`, `SuccessfulCreate +.*Created job tick-\d+`, `SawCompletedJob`}},
		{"describe job " + run, []string{`^Controlled By: +CronJob/tick`, `cronjob-scheduled-timestamp: 20`}},
		{"logs -l batch.kubernetes.io/job-name=parts --prefix", []string{`part 0 on parts-0$`, `part 1 on parts-1$`, `part 2 on parts-2$`}},
		{"logs job/hopeless", []string{`^no use$`}},
		{"get pods -l batch.kubernetes.io/job-name=helped", []string{`^helped-\w{5} +0/2 +Completed +0`}},
		{"logs job/helped -c last", []string{`^help$`, `^before the work$`}},
		{"logs job/helped -c work", []string{`^help$`, `^the work$`}},
		{"logs job/helped -c helper", []string{`^helper ends after the work$`}},
		{"get pods -l batch.kubernetes.io/job-name=helped -o jsonpath={.items[0].status.initContainerStatuses[*].state.terminated.exitCode}", []string{`^5 0$`}},
		{"logs job/" + run, []string{`^ticked$`}},
	})
	if out, _ := m.kubectl("delete", "job", run); !strings.Contains(out, "belongs to CronJob default/tick, which is jobs.yaml:18 at "+commit[:7]) {
		t.Errorf("deleting a run is answered with %s", out)
	}
	before := m.must("get", "pods", "-l", "batch.kubernetes.io/job-name=parts", "-o", "name")
	m.stop(syscall.SIGKILL)
	m.restart()
	m.eventually(30*time.Second, "the pods that have ended are shown", func() (bool, string) {
		after, err := m.kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name=parts", "-o", "name")
		return err == nil && after == before, after
	})
	m.shows(t, []shown{{"get jobs", []string{`^parts +Complete +3/3`}}, {"logs job/hopeless", []string{`^no use$`}}})

	// Somebody tidies up in containerd while the daemon is down.
	m.stop(syscall.SIGKILL)
	m.removeContainers("hopeless")
	m.restart()
	m.eventually(30*time.Second, "the pod is known to have failed, though nothing is left of it", func() (bool, string) {
		out, err := m.kubectl("get", "pods", "-l", "batch.kubernetes.io/job-name=hopeless", "--no-headers")
		return err == nil && strings.Contains(out, "ContainerStatusUnknown"), out
	})
	m.shows(t, []shown{{"get jobs", []string{`^hopeless +Failed +0/1`}}})
	if tried, _ := os.ReadFile(filepath.Join(desk, "hopeless")); string(tried) != "tried\n" {
		t.Errorf("the Job that failed ran again: %q", tried)
	}
}

// removeContainers removes the containers of pods whose name begins with prefix
// from containerd, which knows nothing of them any more.
func (m *machine) removeContainers(prefix string) {
	m.t.Helper()
	ctr := func(args ...string) string {
		out, err := exec.Command("ctr", append([]string{"-a", m.containerd.Address, "-n", m.namespace}, args...)...).CombinedOutput()
		if err != nil {
			m.t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	for id := range strings.FieldsSeq(ctr("containers", "ls", "-q", `labels."fleet.shoal.dev/pod"~=^`+prefix)) {
		if strings.Contains(ctr("tasks", "ls", "-q"), id) {
			ctr("tasks", "rm", "-f", id)
		}
		ctr("containers", "rm", id)
	}
}

// shown is a command of kubectl with regular expressions, each of which must
// match in one line of what it prints.
type shown struct {
	args string
	want []string
}

func (m *machine) shows(t *testing.T, all []shown) {
	t.Helper()
	for _, s := range all {
		out, err := m.kubectl(strings.Fields(s.args)...)
		if err != nil {
			t.Errorf("kubectl %s: %v\n%s", s.args, err, out)
			continue
		}
		for _, want := range s.want {
			if !regexp.MustCompile("(?m)" + want).MatchString(out) {
				t.Errorf("kubectl %s: no line matches %q in\n%s", s.args, want, out)
			}
		}
	}
}
