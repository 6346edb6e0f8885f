package daemon

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/viper"
	corev1 "k8s.io/api/core/v1"
)

func TestMarks(t *testing.T) {
	cases := []struct {
		name           string
		labels, taints []string
		want           Marks
		wrong          []string // parts of the error, one for each mistake
	}{
		{name: "none", want: Marks{Labels: map[string]string{}}},
		{
			name:   "of all forms",
			labels: []string{"disk=ssd", " topology.kubernetes.io/zone=a", "topology.kubernetes.io/region=eu", "node-role.kubernetes.io/edge="},
			taints: []string{" node-role.kubernetes.io/edge:NoSchedule"},
			want: Marks{
				Labels: map[string]string{
					"disk": "ssd", "topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "eu", "node-role.kubernetes.io/edge": "",
				},
				Taints: []corev1.Taint{{Key: "node-role.kubernetes.io/edge", Effect: corev1.TaintEffectNoSchedule}},
			},
		},
		{
			name:   "sorted",
			labels: []string{"disk=ssd", "node.kubernetes.io/instance-type=small", "kubelet.kubernetes.io/x=1", "Rack=R_1"},
			taints: []string{"gpu:PreferNoSchedule", "dedicated=db:NoSchedule", "dedicated=db:NoExecute"},
			want: Marks{
				Labels: map[string]string{"disk": "ssd", "node.kubernetes.io/instance-type": "small", "kubelet.kubernetes.io/x": "1", "Rack": "R_1"},
				Taints: []corev1.Taint{
					{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoExecute},
					{Key: "dedicated", Value: "db", Effect: corev1.TaintEffectNoSchedule},
					{Key: "gpu", Effect: corev1.TaintEffectPreferNoSchedule},
				},
			},
		},
		{name: "a label without a value", labels: []string{"disk"}, wrong: []string{`nodeLabels: "disk" is no key=value`}},
		{name: "a label that is there twice", labels: []string{"a=1", "a=2"}, wrong: []string{`nodeLabels: a is both "1" and "2"`}},
		{name: "a value that is none", labels: []string{"a=b c"}, wrong: []string{`nodeLabels: "b c" of a is no value of a label`}},
		{
			name:   "labels that a kubelet does not set either",
			labels: []string{"kubernetes.io/cluster=x", "node-restriction.kubernetes.io/x=1", "foo.k8s.io/x=1", "app.kubernetes.io/name=x"},
			wrong:  []string{`"kubernetes.io/cluster" belongs`, `"node-restriction.kubernetes.io/x" belongs`, `"foo.k8s.io/x" belongs`, `"app.kubernetes.io/name" belongs`},
		},
		{
			name: "labels of the node's own", labels: []string{"kubernetes.io/hostname=x", "kubernetes.io/arch=arm64"},
			wrong: []string{`"kubernetes.io/hostname" is set by the node itself`, `"kubernetes.io/arch" is set by the node itself`},
		},
		{name: "a taint without an effect", taints: []string{"dedicated=db"}, wrong: []string{`nodeTaints: "dedicated=db" is neither key=value:Effect nor key:Effect`}},
		{name: "an effect that is none", taints: []string{"dedicated=db:Never"}, wrong: []string{`nodeTaints: "Never" of dedicated is none of NoSchedule`}},
		{name: "a taint that is there twice", taints: []string{"a=1:NoSchedule", "a=2:NoSchedule"}, wrong: []string{"nodeTaints: a:NoSchedule is there twice"}},
		{name: "a taint without a key", taints: []string{":NoSchedule"}, wrong: []string{`nodeTaints: "" is no key of a taint`}},
		{name: "a value of a taint that is none", taints: []string{"a=b/c:NoSchedule"}, wrong: []string{`nodeTaints: "b/c" of a is no value of a taint`}},
		{
			name: "taints of the fleet's own", taints: []string{"node.kubernetes.io/disk-pressure:NoSchedule", "fleet.shoal.dev/unstable:NoSchedule"},
			wrong: []string{`"node.kubernetes.io/disk-pressure" is set by the fleet`, `"fleet.shoal.dev/unstable" is set by the fleet`},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Config{NodeLabels: c.labels, NodeTaints: c.taints}.Marks()
			if len(c.wrong) == 0 {
				if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
				return
			}
			if err == nil || len(strings.Split(err.Error(), "\n")) != len(c.wrong) {
				t.Fatalf("got %v, want %d mistakes", err, len(c.wrong))
			}
			for _, part := range c.wrong {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v does not say %q", err, part)
				}
			}
		})
	}
}

// Labels and taints can be written as lists everywhere, and labels as a map in the
// file, whatever their keys are made of.
func TestMarksInTheFile(t *testing.T) {
	want := Marks{
		Labels: map[string]string{"topology.kubernetes.io/zone": "a", "Rack": "R1", "empty": ""},
		Taints: []corev1.Taint{{Key: "dedicated", Value: "DB", Effect: corev1.TaintEffectNoExecute}},
	}
	for name, text := range map[string]string{
		"a map":  "nodeLabels: {topology.kubernetes.io/zone: a, Rack: R1, empty: }\nnodeTaints: ['dedicated=DB:NoExecute']\nlog: {level: warn}\n",
		"a list": "nodeLabels: [topology.kubernetes.io/zone=a, Rack=R1, empty=]\nnodeTaints: ['dedicated=DB:NoExecute']\nlog: {level: warn}\n",
		"a line": "nodelabels: topology.kubernetes.io/zone=a, Rack=R1,empty=\nnodeTaints: dedicated=DB:NoExecute\nlog: {level: warn}\n",
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := loadText(t, text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := cfg.Marks()
			if diff := cmp.Diff(want, got); err != nil || diff != "" || cfg.Log.Level != "warn" {
				t.Errorf("%v, log level %s (-want +got):\n%s", err, cfg.Log.Level, diff)
			}
		})
	}
	for text, want := range map[string]string{
		"nodeLabels: {zone: 1}":       "nodeLabels: the value of zone is no text: put it in quotes",
		"nodeLabels: {zone: a}\nx: 1": "x",
		"nodeTaints: [a:":             "yaml",
	} {
		if _, err := loadText(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func loadText(t *testing.T, text string) (Config, error) {
	t.Helper()
	file := t.TempDir() + "/shoal.yaml"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(viper.New(), file)
}
