package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/runtime"
)

func testHostNamespaces(h *house, t *testing.T) {
	p := pod("shares", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; exec sleep 1000", func(p *corev1.Pod) { p.Spec.HostPID, p.Spec.HostIPC = true, true })
	own := pod("own", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; exec sleep 1000")
	h.run(p)
	h.run(own)
	h.eventually(p, soon, "ready", ready)
	h.eventually(own, soon, "ready", ready)
	for _, kind := range []string{"pid", "ipc"} {
		host, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		h.says(p, "app", host+"\n")
		h.says(own, "app", kind+":[")
		if got := h.log(own, "app", corev1.PodLogOptions{}); strings.Contains(got, host) || !strings.Contains(got, kind+":[") {
			t.Errorf("a pod that shares nothing says %q, the host's namespace is %s", got, host)
		}
	}
}

func testSysctls(h *house, t *testing.T) {
	p := pod("tuned", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; exec sleep 1000", func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{
			{Name: "net.ipv4.ip_unprivileged_port_start", Value: "81"}, {Name: "kernel.shm_rmid_forced", Value: "1"},
		}}
	})
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "81\n1\n")
	if raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start"); err != nil || strings.TrimSpace(string(raw)) == "81" {
		t.Errorf("the machine has %s, %v", raw, err)
	}
}

func testDeadline(h *house, t *testing.T) {
	p := pod("late", "exec sleep 1000", func(p *corev1.Pod) {
		seconds := int64(2)
		p.Spec.ActiveDeadlineSeconds, p.Spec.RestartPolicy = &seconds, corev1.RestartPolicyNever
	})
	h.run(p)
	s := h.eventually(p, soon, "failed", func(s corev1.PodStatus) bool { return s.Phase == corev1.PodFailed })
	if s.Reason != "DeadlineExceeded" {
		t.Errorf("it failed for the reason %q: %s", s.Reason, s.Message)
	}
}

// testSidecar: it starts before, serves, survives its own crash, and ends last.
func testSidecar(h *house, t *testing.T) {
	p := pod("helped", "cat /data/came; trap 'echo app ends; exit 0' TERM; while :; do sleep 0.1; done", func(p *corev1.Pod) {
		runsOn, grace := corev1.ContainerRestartPolicyAlways, int64(5)
		data := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
		p.Spec.TerminationGracePeriodSeconds = &grace
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = data
		p.Spec.InitContainers = []corev1.Container{{
			Name: "proxy", Image: image, ImagePullPolicy: corev1.PullIfNotPresent, RestartPolicy: &runsOn, VolumeMounts: data,
			Command:      []string{"sh", "-c", "echo sidecar came >> /data/came; [ $(wc -l < /data/came) != 1 ] || { sleep 1; exit 3; }; trap 'echo proxy ends; exit 0' TERM; while :; do sleep 0.1; done"},
			StartupProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "-e", "/data/came"}}}, PeriodSeconds: 1, TimeoutSeconds: 1, FailureThreshold: 30, SuccessThreshold: 1},
		}}
	})
	h.run(p)
	s := h.eventually(p, soon, "ready again after the sidecar crashed", func(s corev1.PodStatus) bool {
		return ready(s) && s.InitContainerStatuses[0].RestartCount == 1 && s.InitContainerStatuses[0].Ready
	})
	if s.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the container restarted with its sidecar: %+v", s.ContainerStatuses[0])
	}
	h.says(p, "app", "sidecar came\n")
}

func testSecurity(h *house, t *testing.T) {
	p := pod("secure", "id; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x 2>/dev/null || echo read-only; stat -c %g /data; exec sleep 1000", func(p *corev1.Pod) {
		uid, gid, no, yes := int64(1000), int64(3000), false, true
		p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &gid, RunAsUser: &uid, RunAsNonRoot: &yes}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	})
	h.run(p)
	h.eventually(p, soon, "ready", ready)
	for _, text := range []string{
		"uid=1000(app) gid=1000(app) groups=1000(app),2000(extra),3000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "read-only\n3000\n",
	} {
		h.says(p, "app", text)
	}
}

// testHardened: what nobody asks for, a container does not get; what it asks for,
// it does.
func testHardened(h *house, t *testing.T) {
	const tell = "grep -E 'CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; id -G; cat /proc/sys/net/ipv4/ping_group_range; " +
		"su app -c 'nc -l -p 80 & sleep 0.2; kill $! && echo listened'; echo > /proc/sys/kernel/sysrq || echo read-only; exec sleep 1000"
	p := pod("modest", tell)
	demanding := pod("demanding", tell, func(p *corev1.Pod) {
		yes, strict := true, corev1.SupplementalGroupsPolicyStrict
		uid := int64(1000)
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &uid, SupplementalGroups: []int64{4000}, SupplementalGroupsPolicy: &strict}
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: &yes, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_RAW"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined},
		}
	})
	h.run(p)
	h.run(demanding)
	h.eventually(p, soon, "ready", ready)
	h.eventually(demanding, soon, "ready", ready)
	for _, text := range []string{
		"CapBnd:\t00000000000005fb", "NoNewPrivs:\t1", "Seccomp:\t2", "0\t2147483647", "listened", "read-only",
	} {
		h.says(p, "app", text)
	}
	for _, text := range []string{"CapBnd:\t00000000000025fb", "NoNewPrivs:\t0", "Seccomp:\t0", "\n1000 4000\n"} {
		h.says(demanding, "app", text)
	}
}

// testProfile: a seccomp profile of the node is in force, and one that it lacks is
// waited for.
func testProfile(h *house, t *testing.T) {
	dir := filepath.Join(h.cfg.StateDir, "seccomp", "team")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := pod("profiled", "mkdir /made 2>&1 || echo refused; exec sleep 1000", func(p *corev1.Pod) {
		name := "team/no-mkdir.json"
		p.Spec.SecurityContext = &corev1.PodSecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &name}}
	})
	h.run(p)
	s := h.eventually(p, soon, "waiting for its profile", waits("CreateContainerConfigError"))
	if got := s.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(got, "seccomp profile team/no-mkdir.json") {
		t.Errorf("it waits for: %s", got)
	}
	profile := `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`
	if err := os.WriteFile(filepath.Join(dir, "no-mkdir.json"), []byte(profile), 0o644); err != nil {
		t.Fatal(err)
	}
	h.eventually(p, soon, "ready", ready)
	h.says(p, "app", "refused")
}

// testPropagation: what is mounted on the machine later shows in a container that
// asks for it, and in no other; a recursively read-only volume is so below, too.
func testPropagation(h *house, t *testing.T) {
	dir := t.TempDir()
	below := filepath.Join(dir, "below")
	for _, mount := range []func() error{
		func() error { return unix.Mount("tmpfs", dir, "tmpfs", 0, "") },
		func() error { return unix.Mount("", dir, "", unix.MS_SHARED, "") },
		func() error { return os.Mkdir(below, 0o755) },
	} {
		if err := mount(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, point := range []string{below, dir} {
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	})
	follow, strictly := corev1.MountPropagationHostToContainer, corev1.RecursiveReadOnlyEnabled
	with := func(m corev1.VolumeMount) func(*corev1.Pod) {
		m.Name, m.MountPath = "host", "/host"
		return func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{m}
		}
	}
	const wait = "while [ ! -e /host/below/file ]; do sleep 0.1; done; echo seen; exec sleep 1000"
	follows, alone := pod("follows", wait, with(corev1.VolumeMount{MountPropagation: &follow})), pod("alone", wait, with(corev1.VolumeMount{}))
	h.run(follows)
	h.run(alone)
	h.eventually(follows, soon, "ready", ready)
	h.eventually(alone, soon, "ready", ready)
	if err := unix.Mount("tmpfs", below, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(below, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	h.says(follows, "app", "seen")
	const try = "touch /host/below/new 2>&1; touch /host/new 2>&1; echo tried; exec sleep 1000"
	shallow, deep := pod("shallow", try, with(corev1.VolumeMount{ReadOnly: true})), pod("deep", try, with(corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: &strictly}))
	h.run(shallow)
	h.run(deep)
	h.says(shallow, "app", "tried")
	h.says(deep, "app", "tried")
	for p, want := range map[string]int{"shallow": 1, "deep": 2} {
		which := map[string]runtime.Pod{"shallow": shallow, "deep": deep}[p]
		if got := h.log(which, "app", corev1.PodLogOptions{}); strings.Count(got, "Read-only file system") != want {
			t.Errorf("%s: want %d refusals:\n%s", p, want, got)
		}
	}
	if got := h.log(alone, "app", corev1.PodLogOptions{}); got != "" {
		t.Errorf("a container that does not follow says %q", got)
	}
}

func testFollow(h *house, t *testing.T) {
	p := pod("talk", "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2; exec sleep 1000")
	h.run(p)
	h.says(p, "app", "oops\n")
	h.says(p, "app", "line 5\n")
	two := int64(2)
	if got := h.log(p, "app", corev1.PodLogOptions{TailLines: &two}); !strings.HasSuffix(got, "\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("tail: got %q", got)
	}
	limit := int64(6)
	if got := h.log(p, "app", corev1.PodLogOptions{LimitBytes: &limit}); len(got) != 6 {
		t.Errorf("limit: got %q", got)
	}
	later := metav1.NewTime(time.Now().Add(time.Minute))
	if got := h.log(p, "app", corev1.PodLogOptions{SinceTime: &later}); got != "" {
		t.Errorf("since: got %q", got)
	}
	if _, err := h.agent.Logs(context.Background(), p.Instance(), "nope", corev1.PodLogOptions{}); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("unknown container: got %v", err)
	}
}
