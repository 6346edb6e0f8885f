package daemon

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/policy"
	"github.com/shoal-dev/shoal/runtime"
)

// configCache holds what pods refer to, taken out of one snapshot.
type configCache struct {
	units      map[string]api.Commit
	configMaps map[types.NamespacedName]*corev1.ConfigMap
	secrets    map[types.NamespacedName]*corev1.Secret
}

// fillConfig adds what pods may refer to. It is the same for as long as the
// commits are the same.
func (c *control) fillConfig(desired *runtime.Desired, snapshot api.Snapshot) {
	if snapshot.Known() && !maps.Equal(c.config.units, snapshot.Units) {
		next := configCache{
			units:      maps.Clone(snapshot.Units),
			configMaps: map[types.NamespacedName]*corev1.ConfigMap{},
			secrets:    map[types.NamespacedName]*corev1.Secret{},
		}
		for m := range api.Of[*corev1.ConfigMap](snapshot) {
			next.configMaps[types.NamespacedName{Namespace: m.Namespace, Name: m.Name}] = m
		}
		for s := range api.Of[*corev1.Secret](snapshot) {
			next.secrets[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
		}
		c.config = next
	}
	desired.ConfigMaps, desired.Secrets = c.config.configMaps, c.config.secrets
	for service := range api.Of[*corev1.Service](snapshot) {
		desired.Services = append(desired.Services, policy.WithAddress(service, c.decided.Facts.Addresses[service.Namespace+"/"+service.Name]))
	}
}

// configOf returns what a pod refers to where that goes with its revision: out of
// a snapshot that has the pod's revision, like its template. It is nil for a pod
// that has the newest.
func configOf(snapshot api.Snapshot, p api.Pod, spec *corev1.PodSpec) *runtime.Config {
	owner, found := snapshot.Lookup(api.Key{Group: "apps", Kind: p.Kind, Namespace: p.Namespace, Name: p.Owner})
	if !found || !api.RollsOnConfig(owner) {
		return nil
	}
	out := &runtime.Config{}
	configMaps, secrets := api.ConfigRefs(spec)
	for _, name := range configMaps {
		if m, found := api.Get[*corev1.ConfigMap](snapshot, "", "ConfigMap", p.Namespace, name); found {
			out.ConfigMaps = append(out.ConfigMaps, m)
		}
	}
	for _, name := range secrets {
		if s, found := api.Get[*corev1.Secret](snapshot, "", "Secret", p.Namespace, name); found {
			out.Secrets = append(out.Secrets, s)
		}
	}
	return out
}
