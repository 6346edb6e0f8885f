package agent_test

import (
	"context"
	"fmt"
	"io"
	maps0 "maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
)

const soon = 30 * time.Second

// log returns what a container wrote.
func (h *house) log(p runtime.Pod, container string, opts corev1.PodLogOptions) string {
	h.t.Helper()
	r, err := h.agent.Logs(context.Background(), p.Instance(), container, opts)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// says waits until a container's log holds a text.
func (h *house) says(p runtime.Pod, container, text string) {
	h.t.Helper()
	var log string
	defer func() {
		if h.t.Failed() {
			h.t.Logf("log of %s/%s: %.2000s%s", p.Object.Name, container, log, h.story(p.Object.Name))
		}
	}()
	testenv.Eventually(h.t, soon, fmt.Sprintf("%s/%s says %q", p.Object.Name, container, text), func() bool {
		log = h.log(p, container, corev1.PodLogOptions{})
		return strings.Contains(log, text)
	})
}

func terminated(s corev1.PodStatus) *corev1.ContainerStateTerminated {
	if len(s.ContainerStatuses) == 0 {
		return nil
	}
	return s.ContainerStatuses[0].State.Terminated
}

func waits(reason string) func(corev1.PodStatus) bool {
	return func(s corev1.PodStatus) bool {
		return len(s.ContainerStatuses) > 0 && s.ContainerStatuses[0].State.Waiting != nil &&
			s.ContainerStatuses[0].State.Waiting.Reason == reason
	}
}

// pid returns the process of a pod's container app, found by its cgroup.
func (h *house) pid(p runtime.Pod) int {
	h.t.Helper()
	files, err := filepath.Glob("/sys/fs/cgroup/pids/shoal/" + p.Instance() + "/app.*/cgroup.procs")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, file := range slices.Backward(files) {
		b, _ := os.ReadFile(file)
		var pid int
		if _, err := fmt.Sscan(string(b), &pid); err == nil {
			return pid
		}
	}
	return 0
}

// TestPod runs pods of many kinds on one machine.
func TestPod(t *testing.T) {
	h := newHouse(t)
	h.desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{
		{Namespace: "default", Name: "settings"}: {Data: map[string]string{"color": "blue", "size": "large"}},
	}
	h.desired.Secrets = map[types.NamespacedName]*corev1.Secret{
		{Namespace: "default", Name: "keys"}: {Data: map[string][]byte{"password": []byte("hunter2")}},
	}
	h.desired.DNS = runtime.DNSConfig{Server: "10.96.0.10", Domain: "cluster.local"}
	for _, test := range []struct {
		name string
		run  func(*house, *testing.T)
	}{
		{"restarts", testRestart},
		{"init and shared namespaces", testInit},
		{"environment", testEnvironment},
		{"volumes", testVolumes},
		{"configuration appears", testConfigAppears},
		{"once", testOnce},
		{"cannot run", testCannotRun},
		{"out of memory", testOOM},
		{"probes", testProbes},
		{"hooks and grace", testHooks},
		{"host network", testHostNetwork},
		{"namespaces of the host", testHostNamespaces},
		{"kernel parameters", testSysctls},
		{"deadline", testDeadline},
		{"sidecar", testSidecar},
		{"security", testSecurity},
		{"hardened", testHardened},
		{"profile of the node", testProfile},
		{"propagation", testPropagation},
		{"follow", testFollow},
	} {
		t.Run(test.name, func(t *testing.T) {
			outer := h.t
			h.t = t
			defer func() { h.t = outer }()
			test.run(h, t)
		})
	}
	h.removeAll()
}

// removeAll takes every pod away and checks that nothing is left of them.
func (h *house) removeAll() {
	h.t.Helper()
	for _, p := range h.desired.Pods {
		h.desired.Remove = append(h.desired.Remove, p.Instance())
	}
	h.desired.Remove = sorted(h.desired.Remove)
	h.desired.Pods = nil
	h.agent.Sync(h.desired)
	testenv.Eventually(h.t, soon, "all pods are gone", func() bool { return len(h.agent.States().Pods) == 0 })
	h.nothingLeft()
}

// nothingLeft checks that the machine holds no trace of any pod.
func (h *house) nothingLeft() {
	h.t.Helper()
	for _, pattern := range []string{
		h.cfg.RunDir + "/pods/*", h.cfg.RunDir + "/sandboxes/*", h.cfg.RunDir + "/fifo/*", h.cfg.RunDir + "/cni/leases/shoal/10.*",
		h.cfg.StateDir + "/pods/*", h.cfg.StateDir + "/logs/*",
	} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(left) > 0 {
			h.t.Errorf("left behind: %q", left)
		}
	}
	for _, instance := range h.desired.Remove {
		if left, _ := filepath.Glob("/sys/fs/cgroup/*/shoal/" + instance); len(left) > 0 {
			h.t.Errorf("left behind: %q", left)
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, link := range links {
		if link.Type() == "veth" {
			h.t.Errorf("left behind: %s", link.Attrs().Name)
		}
	}
	for _, dir := range []string{h.cfg.StateDir, h.cfg.RunDir} {
		if mounts := testenv.Mounts(dir); len(mounts) > 0 {
			h.t.Errorf("left mounted: %q", mounts)
		}
	}
}

func testRestart(h *house, t *testing.T) {
	p := pod("crash", "echo attempt; exec sleep 1000")
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "attempt\n")
	pid := h.pid(p)
	begin := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := h.eventually(p, soon, "running again", func(s corev1.PodStatus) bool {
		return s.ContainerStatuses[0].RestartCount == 1 && s.ContainerStatuses[0].State.Running != nil
	})
	t.Logf("killed to running: %s", time.Since(begin))
	last := s.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.ExitCode != 137 || last.Reason != "Error" {
		t.Errorf("last state: got %+v", last)
	}
	h.says(p, "app", "attempt\n")
	if got := h.log(p, "app", corev1.PodLogOptions{Previous: true}); got != "attempt\n" {
		t.Errorf("previous log: got %q", got)
	}
	// The second crash backs off.
	if err := syscall.Kill(h.pid(p), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s = h.eventually(p, soon, "backing off", waits("CrashLoopBackOff"))
	want := fmt.Sprintf("back-off 10s restarting failed container=app pod=crash_default(%s)", p.Instance())
	if got := s.ContainerStatuses[0].State.Waiting.Message; got != want {
		t.Errorf("message: got %q, want %q", got, want)
	}
}

func testInit(h *house, t *testing.T) {
	p := pod("staged", "echo from app > /tmp/x; while true; do echo -e 'HTTP/1.0 200 OK\r\n\r\nhi' | nc -l -p 8080; done", func(p *corev1.Pod) {
		p.Spec.Hostname, p.Spec.Subdomain = "stage", "sub"
		first := p.Spec.Containers[0]
		first.Name, first.Command = "first", []string{"sh", "-c", "echo one > /work/log"}
		first.VolumeMounts = []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
		second := first
		second.Name, second.Command = "second", []string{"sh", "-c", "echo two >> /work/log"}
		p.Spec.InitContainers = []corev1.Container{first, second}
		side := first
		side.Name = "side"
		side.Command = []string{"sh", "-c", "cat /work/log; hostname; cat /etc/hosts /etc/resolv.conf; " +
			"until wget -q -O - http://127.0.0.1:8080; do sleep 0.1; done; exec sleep 1000"}
		p.Spec.Containers = append(p.Spec.Containers, side)
		p.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	})
	h.run(p)
	s := h.eventually(p, soon, "ready", ready)
	for i, c := range s.InitContainerStatuses {
		if c.State.Terminated == nil || c.State.Terminated.Reason != "Completed" || !c.Ready {
			t.Errorf("init container %d: got %+v", i, c.State)
		}
	}
	for _, text := range []string{
		"one\ntwo\nstage\n", s.PodIP + "\tstage.sub.default.svc.cluster.local\tstage\n",
		"search default.svc.cluster.local svc.cluster.local cluster.local", "nameserver 10.96.0.10\n", "options ndots:5\n", "hi\n",
	} {
		h.says(p, "side", text)
	}
}

func testEnvironment(h *house, t *testing.T) {
	p := pod("env", "env; echo args: \"$@\"; exec sleep 1000", func(p *corev1.Pod) {
		field := func(path string) *corev1.EnvVarSource {
			return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
		}
		c := &p.Spec.Containers[0]
		c.Args = []string{"sh", "$(PLAIN)", "$$(PLAIN)", "$(NOPE)"}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
		c.EnvFrom = []corev1.EnvFromSource{{Prefix: "CFG_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
		c.Env = []corev1.EnvVar{
			{Name: "PLAIN", Value: "x"},
			{Name: "REF", Value: "<$(PLAIN)-$(CFG_color)>"},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "LABEL", ValueFrom: field("metadata.labels['app']")},
			{Name: "SECRET", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "keys"}, Key: "password"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
		}
	})
	h.run(p)
	s := h.eventually(p, soon, "ready", ready)
	for _, text := range []string{
		"CFG_color=blue\n", "CFG_size=large\n", "REF=<x-blue>\n", "IP=" + s.PodIP + "\n", "NODE=n1\n", "LABEL=env\n",
		"SECRET=hunter2\n", "CPU=500\n", "MEM=64\n", "HOSTNAME=env\n", "args: x $(PLAIN) $(NOPE)\n",
	} {
		h.says(p, "app", text)
	}
}

func testVolumes(h *house, t *testing.T) {
	mode := int32(0o400)
	p := pod("volumes", `
		cat /config/color; echo; stat -L -c %a /secret/password; cat /secret/password; echo
		cat /projected/down/labels; echo; cat /projected/c; echo; df -T /memory | tail -1 | awk '{print $2}'; ls /sub; cat /one
		while true; do cat /config/color; echo; sleep 0.2; done`, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}},
			{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "keys", DefaultMode: &mode}}},
			{Name: "memory", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
			{Name: "disk", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "down/labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
				{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}, Items: []corev1.KeyToPath{{Key: "color", Path: "c"}}}},
			}}}},
		}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
			{Name: "config", MountPath: "/config"},
			{Name: "secret", MountPath: "/secret"},
			{Name: "memory", MountPath: "/memory"},
			{Name: "projected", MountPath: "/projected"},
			{Name: "disk", MountPath: "/sub", SubPath: "a/b"},
			{Name: "config", MountPath: "/one", SubPath: "color"},
		}
	})
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "blue\n400\nhunter2\napp=\"volumes\"\nblue\ntmpfs\nblue")
	// A change of the ConfigMap arrives without a restart.
	h.desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{
		{Namespace: "default", Name: "settings"}: {Data: map[string]string{"color": "green", "size": "large"}},
	}
	h.agent.Sync(h.desired)
	h.says(p, "app", "green\n")
	if n := h.status(p).ContainerStatuses[0].RestartCount; n != 0 {
		t.Errorf("restarts: got %d", n)
	}
}

func testConfigAppears(h *house, t *testing.T) {
	p := pod("waiting", "echo $LATE; exec sleep 1000", func(p *corev1.Pod) {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "LATE", ValueFrom: &corev1.EnvVarSource{
			ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "late"}, Key: "k"},
		}}}
	})
	h.run(p)
	s := h.eventually(p, soon, "waiting", waits("CreateContainerConfigError"))
	if got := s.ContainerStatuses[0].State.Waiting.Message; got != `environment variable LATE: configmap "late" not found` {
		t.Errorf("message: got %q", got)
	}
	maps := map[types.NamespacedName]*corev1.ConfigMap{{Namespace: "default", Name: "late"}: {Data: map[string]string{"k": "here"}}}
	maps0.Copy(maps, h.desired.ConfigMaps)
	h.desired.ConfigMaps = maps
	h.agent.Sync(h.desired)
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "here\n")
}

func testOnce(h *house, t *testing.T) {
	never := func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever }
	good, bad := pod("good", "echo done; echo all well > /dev/termination-log", never), pod("bad", "exit 3", never)
	h.run(good, bad)
	s := h.eventually(good, soon, "succeeded", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodSucceeded })
	if e := terminated(s); e == nil || e.Reason != "Completed" || e.Message != "all well\n" {
		t.Errorf("ended: got %+v", e)
	}
	h.says(good, "app", "done\n")
	s = h.eventually(bad, soon, "failed", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	if e := terminated(s); e == nil || e.Reason != "Error" || e.ExitCode != 3 {
		t.Errorf("ended: got %+v", e)
	}
	for _, state := range h.agent.States().Pods {
		if state.Pod.Instance == bad.Instance() && (state.ExitCode != 3 || state.Phase != corev1.PodFailed) {
			t.Errorf("state: got %+v", state)
		}
	}
}

func testCannotRun(h *house, t *testing.T) {
	p := pod("typo", "", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"/no/such/program"} })
	root := pod("root", "sleep 1000", func(p *corev1.Pod) {
		yes := true
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
	})
	h.run(p, root)
	s := h.eventually(p, soon, "crash loop", waits("CrashLoopBackOff"))
	last := s.ContainerStatuses[0].LastTerminationState.Terminated
	if last == nil || last.Reason != "StartError" || last.ExitCode != 128 || !strings.Contains(last.Message, "no such file") {
		t.Errorf("last: got %+v", last)
	}
	s = h.eventually(root, soon, "configuration error", waits("CreateContainerConfigError"))
	if got := s.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(got, "container has runAsNonRoot and image will run as root") {
		t.Errorf("message: got %q", got)
	}
}

func testOOM(h *house, t *testing.T) {
	p := pod("hungry", "exec tail /dev/zero", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyNever
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	})
	h.run(p)
	s := h.eventually(p, soon, "failed", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	if e := terminated(s); e == nil || e.Reason != "OOMKilled" || e.ExitCode != 137 {
		t.Errorf("ended: got %+v", e)
	}
}

func testProbes(h *house, t *testing.T) {
	serve := "mkdir -p /www; echo ok > /www/index.html; touch /tmp/alive; httpd -p 80 -h /www; while true; do sleep 0.1; done"
	p := pod("probed", serve, func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/index.html", Port: intstr.FromInt32(80)},
		}}
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 2, ProbeHandler: corev1.ProbeHandler{
			Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/alive"}},
		}}
		c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(80)},
		}}
	})
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	pid := h.pid(p)
	root := fmt.Sprintf("/proc/%d/root", pid)
	if err := os.Remove(root + "/www/index.html"); err != nil {
		t.Fatal(err)
	}
	h.eventually(p, soon, "not ready", func(s corev1.PodStatus) bool { return !ready(s) })
	if err := os.WriteFile(root+"/www/index.html", []byte("ok"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.eventually(p, soon, "ready again", ready)
	if err := os.Remove(root + "/tmp/alive"); err != nil {
		t.Fatal(err)
	}
	h.eventually(p, soon, "restarted", func(s corev1.PodStatus) bool {
		return s.ContainerStatuses[0].RestartCount == 1 && ready(s)
	})
}

func testHooks(h *house, t *testing.T) {
	p := pod("hooked", "trap 'echo term; exit 0' TERM; echo up; while true; do sleep 0.1; done", func(p *corev1.Pod) {
		grace := int64(20)
		p.Spec.TerminationGracePeriodSeconds = &grace
		p.Spec.Volumes = []corev1.Volume{{Name: "out", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: filepath.Join(h.cfg.StateDir, "out")}}}}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{{Name: "out", MountPath: "/out"}}
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo started >> /out/log"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", "echo stopping >> /out/log"}}},
		}
	})
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "up\n")
	follow, err := h.agent.Logs(context.Background(), p.Instance(), "app", corev1.PodLogOptions{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	h.desired.Remove = sorted(append(h.desired.Remove, p.Instance()))
	begin := time.Now()
	h.agent.Sync(h.desired)
	testenv.Eventually(t, soon, "the pod is gone", func() bool {
		_, found := h.agent.Status(p.Instance())
		return !found
	})
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	log, err := io.ReadAll(follow)
	if err != nil || !strings.Contains(string(log), "term\n") {
		t.Errorf("followed log: got %q, %v", log, err)
	}
	out, err := os.ReadFile(filepath.Join(h.cfg.StateDir, "out", "log"))
	if err != nil || string(out) != "started\nstopping\n" {
		t.Errorf("hooks: got %q, %v", out, err)
	}
	h.desired.Pods = without(h.desired.Pods, p.Instance())
}

func testHostNetwork(h *house, t *testing.T) {
	p := pod("host", "readlink /proc/self/ns/net; exec sleep 1000", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	h.run(p)
	s := h.eventually(p, soon, "ready", ready)
	if s.PodIP != "192.0.2.1" {
		t.Errorf("pod IP: got %q", s.PodIP)
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	h.says(p, "app", own+"\n")
}
