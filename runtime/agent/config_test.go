package agent_test

import (
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

// TestConfigOfAnOlderRevision: a pod that has configuration of its own has it again
// when it restarts, whatever is the newest and while nobody has told the agent yet what
// is desired.
func TestConfigOfAnOlderRevision(t *testing.T) {
	dir := testenv.Dir(t)
	engine := runtimetest.NewMemory(image)
	h := &house{t: t, desired: runtime.Desired{Known: true}, cfg: agent.Config{
		Node: "n1", StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), Confined: true,
		Engine: engine, Network: &runtimetest.Network{}, Logs: &runtimetest.Logs{},
	}}
	configMap := func(value string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "m"}, Data: map[string]string{"COLOR": value}}
	}
	follow := func(value string) {
		h.desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{{Namespace: "default", Name: "m"}: configMap(value)}
		h.agent.Sync(h.desired)
	}
	reads := func(p *corev1.Pod) {
		p.Spec.Containers[0].Command = []string{"sleep", "1000"}
		p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}}}
	}
	old, newest := pod("old", "", reads), pod("newest", "", reads)
	old.Config = &runtime.Config{ConfigMaps: []*corev1.ConfigMap{configMap("blue")}}
	h.start()
	defer func() { h.stop() }()
	follow("green")
	h.run(old, newest)
	h.eventually(old, soon, "ready", ready)
	h.eventually(newest, soon, "ready", ready)

	restarted := func(p runtime.Pod, attempt int32, want string) {
		t.Helper()
		held, err := engine.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range held {
			if c.Assignment.Pod.Instance == p.Instance() && c.State == runtime.ContainerRunning {
				engine.Crash(c.ID, 1)
			}
		}
		testenv.Eventually(t, soon, p.Object.Name+" has "+want+" again", func() bool {
			held, err := engine.List(t.Context())
			return err == nil && slices.ContainsFunc(held, func(c runtime.Held) bool {
				return c.Assignment.Pod.Instance == p.Instance() && c.State == runtime.ContainerRunning && c.Attempt == attempt &&
					slices.Contains(engine.Env(c.ID), "COLOR="+want)
			})
		})
	}
	follow("red")
	restarted(newest, 1, "red")
	h.stop()
	h.start()
	testenv.Eventually(t, soon, "what runs is adopted", func() bool { return h.agent.Adopted() && len(h.agent.States().Pods) == 2 })
	restarted(old, 1, "blue")
}
