package runtime_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/runtime"
)

// A pod with configuration of its own has that and nothing of the newest: what is
// not in it is not there.
func TestConfigOfItsOwn(t *testing.T) {
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	configMap := func(name, value string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: named(name), Data: map[string]string{"k": value}}
	}
	secret := func(name, value string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: named(name), Data: map[string][]byte{"k": []byte(value)}}
	}
	s := runtime.Sources{Pod: &corev1.Pod{ObjectMeta: named("p")}}
	s.Desired.ConfigMaps = map[types.NamespacedName]*corev1.ConfigMap{
		{Namespace: "default", Name: "m"}: configMap("m", "new"), {Namespace: "default", Name: "later"}: configMap("later", "new"),
	}
	s.Desired.Secrets = map[types.NamespacedName]*corev1.Secret{
		{Namespace: "default", Name: "s"}: secret("s", "new"), {Namespace: "default", Name: "later"}: secret("later", "new"),
	}
	yes := true
	c := &corev1.Container{EnvFrom: []corev1.EnvFromSource{
		{Prefix: "M_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "m"}}},
		{Prefix: "S_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}}},
		{Prefix: "LM_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}, Optional: &yes}},
		{Prefix: "LS_", SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}, Optional: &yes}},
	}}
	for _, tt := range []struct {
		name   string
		config *runtime.Config
		want   []string
		err    string
	}{
		{"the newest", nil, []string{"M_k=new", "S_k=new", "LM_k=new", "LS_k=new"}, ""},
		{
			"its own",
			&runtime.Config{ConfigMaps: []*corev1.ConfigMap{configMap("m", "old")}, Secrets: []*corev1.Secret{secret("s", "old")}},
			[]string{"M_k=old", "S_k=old"},
			"",
		},
		{"none", &runtime.Config{}, nil, `configmap "m" not found`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.Config = tt.config
			got, err := runtime.Env(s, c)
			if diff := cmp.Diff(tt.want, got); diff != "" || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("error %v\n%s", err, diff)
			}
		})
	}
}
