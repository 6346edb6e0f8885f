//go:build e2e

package onenode

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// setYAML is the example with a template that changes, and retention of choice.
func setYAML(t *testing.T, version string, replicas int, policy string) string {
	t.Helper()
	example, err := os.ReadFile("../../examples-repo/database/database.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := strings.NewReplacer("image: redis:7", "image: redis:7.2", "replicas: 2", fmt.Sprintf("replicas: %d", replicas),
		"      labels:\n        app: database\n    spec:", "      labels:\n        app: database\n      annotations:\n        version: \""+version+"\"\n    spec:").Replace(string(example))
	if policy != "" {
		out = strings.Replace(out, "  serviceName: database\n", "  serviceName: database\n  persistentVolumeClaimRetentionPolicy: {whenScaled: "+policy+"}\n", 1)
	}
	return out
}

// clientYAML runs redis-cli once, in a Job of its own.
func clientYAML(name, command string) string {
	return fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  template:
    spec:
      restartPolicy: OnFailure
      containers: [{name: c, image: "redis:7.2", command: [sh, -ec, %q]}]
`, name, command)
}

// TestStatefulSet runs two databases with volumes: they start in order, are found
// by name, roll from the top, and keep their data over the roll, a restart of the
// daemon and the loss of the StatefulSet. What is scaled away with
// whenScaled: Delete is deleted, and nothing else.
func TestStatefulSet(t *testing.T) {
	m := newMachine(t)
	m.serveImages()
	r := newRepo(t)
	files := map[string]string{
		"db.yaml": setYAML(t, "1", 2, ""),
		"write.yaml": clientYAML("write", "redis-cli -h database-0.database set who zero; redis-cli -h database-1.database.default.svc.cluster.local set who one; "+
			"nslookup database-1.database.default.svc.cluster.local 10.96.0.10"),
	}
	r.write(files)
	r.commit("a database")
	m.start(r.dir)
	m.must("rollout", "status", "statefulset/database", "--timeout=60s")
	m.must("wait", "--for=condition=Complete", "job/write", "--timeout=60s")
	one := m.field("{.status.podIP}", "get", "pod", "database-1")
	m.shows(t, []shown{
		{"get statefulset", []string{`^database +2/2`}},
		{"get pods -l app=database -o wide", []string{`^database-0 +1/1 +Running`, `^database-1 +1/1 +Running`}},
		{"get pod database-1 --show-labels", []string{`apps.kubernetes.io/pod-index=1.*controller-revision-hash=database-\w{10}.*statefulset.kubernetes.io/pod-name=database-1`}},
		{"get pvc", []string{`^data-database-0 +Bound +default-data-database-0-\d+-\d+ +1Gi +RWO +local-path`, `^data-database-1 +Bound`}},
		{"get pv", []string{`^default-data-database-1-\d+-\d+ +1Gi +RWO +Retain +Bound +default/data-database-1 +local-path`}},
		{"describe pv", []string{`kubernetes.io/hostname in \[n1\]`}},
		{"describe statefulset database", []string{`^Replicas: +2 desired \| 2 total`, `SuccessfulCreate +.*database-0`, `^Pods Status: +2 Running`}},
		{"describe pvc data-database-0", []string{`^Used By: +database-0`, `^Status: +Bound`}},
		{"logs job/write", []string{`^OK$`, regexp.QuoteMeta(one)}},
	})
	zero, first := m.started("database-0"), m.started("database-1")
	if first.Before(zero) { // they are told in seconds
		t.Errorf("database-0 started at %s, database-1 at %s", zero, first)
	}

	files["db.yaml"] = setYAML(t, "2", 2, "")
	r.write(files)
	r.commit("roll")
	m.eventually(60*time.Second, "both pods are of the new template", func() (bool, string) {
		out, err := m.kubectl("get", "pods", "-l", "app=database", "-o", "jsonpath={.items[*].metadata.annotations.version}")
		return err == nil && out == "2 2", out
	})
	m.must("rollout", "status", "statefulset/database", "--timeout=60s")
	if zero, first = m.started("database-0"), m.started("database-1"); zero.Before(first) {
		t.Errorf("rolled: database-0 started at %s, database-1 at %s", zero, first)
	}
	m.reads(t, r, files, "read", "zero one")

	m.stop(syscall.SIGKILL)
	m.restart()
	before := m.volumes(t)
	files["db.yaml"] = "" // none
	r.write(files)
	r.commit("no database")
	m.eventually(60*time.Second, "the pods are gone", func() (bool, string) {
		out, err := m.kubectl("get", "pods", "-l", "app=database", "-o", "name")
		return err == nil && out == "", out
	})
	m.shows(t, []shown{{"get pvc", []string{`^data-database-0 +Bound`, `^data-database-1 +Bound`}}})
	files["db.yaml"] = setYAML(t, "2", 2, "Delete")
	r.write(files)
	r.commit("the database again")
	m.must("wait", "--for=create", "statefulset/database", "--timeout=60s")
	m.must("rollout", "status", "statefulset/database", "--timeout=60s")
	m.reads(t, r, files, "again", "zero one")
	if after := m.volumes(t); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("the volumes were %s and are %s", before, after)
	}

	files["db.yaml"] = setYAML(t, "2", 1, "Delete")
	r.write(files)
	r.commit("one less")
	m.eventually(60*time.Second, "the volume is deleted", func() (bool, string) {
		left := m.volumes(t)
		return len(left) == 1, strings.Join(left, " ")
	})
	if left := m.volumes(t); left[0] != before[0] {
		t.Errorf("left is %s, want %s", left, before[0])
	}
	m.eventually(30*time.Second, "the claim is gone", func() (bool, string) {
		out, err := m.kubectl("get", "pvc,pv", "-o", "name")
		return err == nil && strings.Count(out, "data-database-0") == 2 && !strings.Contains(out, "data-database-1"), out
	})
	files["db.yaml"] = setYAML(t, "2", 2, "Delete")
	r.write(files)
	r.commit("one more")
	m.eventually(60*time.Second, "both are ready", func() (bool, string) {
		out, err := m.kubectl("get", "statefulset", "database", "-o", "jsonpath={.status.readyReplicas}")
		return err == nil && out == "2", out
	})
	m.reads(t, r, files, "empty", "zero ")
}

// started is when the container of a pod started.
func (m *machine) started(pod string) time.Time {
	m.t.Helper()
	at, err := time.Parse(time.RFC3339, m.field("{.status.containerStatuses[0].state.running.startedAt}", "get", "pod", pod))
	if err != nil {
		m.t.Fatal(err)
	}
	return at
}

// reads asks both databases for what was written.
func (m *machine) reads(t *testing.T, r *repo, files map[string]string, job, want string) {
	t.Helper()
	files[job+".yaml"] = clientYAML(job, `echo "$(redis-cli -h database-0.database get who) $(redis-cli -h database-1.database get who)"`)
	r.write(files)
	r.commit(job)
	m.must("wait", "--for=create", "job/"+job, "--timeout=60s")
	m.must("wait", "--for=condition=Complete", "job/"+job, "--timeout=60s")
	if got := strings.TrimRight(m.must("logs", "job/"+job), "\n"); got != want {
		t.Errorf("%s: the databases say %q, want %q", job, got, want)
	}
}

// volumes lists the folders of volumes.
func (m *machine) volumes(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob(filepath.Join(m.state, "volumes", "default", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return out
}
