package daemon

import (
	"os"
	"strings"
	"testing"

	"github.com/spf13/viper"

	"github.com/shoal-dev/shoal/runtime/evict"
)

// The default keeps what kubelet's keeps.
func TestDefaultResources(t *testing.T) {
	r, err := Default().Resources()
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Eviction.Hard(evict.Memory, 1<<40); got != 100<<20 {
		t.Errorf("%d bytes of memory have to be left", got)
	}
	if r.Own != nil || len(r.System) != 0 || len(r.Eviction.Thresholds) != 6 {
		t.Errorf("got %+v", r)
	}
}

// A file may write lists as maps, with dots in their keys.
func TestResourcesOfFile(t *testing.T) {
	file := t.TempDir() + "/shoal.yaml"
	text := "systemReserved: {cpu: 1, memory: 1Gi}\nevictionHard:\n  memory.available: 5%\n  nodefs.inodesFree: \"1000\"\nevictionSoft: [memory.available<1Gi]\nevictionSoftGracePeriod: {memory.available: 30s}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(viper.New(), file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := cfg.Resources()
	if err != nil {
		t.Fatal(err)
	}
	if r.System.Cpu().String() != "1" || r.System.Memory().String() != "1Gi" || len(r.Eviction.Thresholds) != 3 || r.Eviction.Hard(evict.NodeInodes, 0) != 1000 {
		t.Errorf("got %+v", r)
	}
	cfg.EvictionHard, cfg.KubeReserved, cfg.PodPIDs = []string{"x"}, []string{"y"}, -2
	_, err = cfg.Resources()
	for _, setting := range []string{"evictionHard", "kubeReserved", "podPidsLimit"} {
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("got %v, want a word on %s", err, setting)
		}
	}
}
