package api

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// RollOnConfig is the annotation of a workload whose pods are replaced when what
// their ConfigMaps and Secrets hold changes: "true", or "false" as without it.
const RollOnConfig = "fleet.shoal.dev/roll-on-config"

// RollsOnConfig reports whether the Revision of an object covers the ConfigMaps
// and Secrets that its pods refer to. Such a pod has them from a commit of its own
// revision, and no newer ones.
func RollsOnConfig(o Object) bool {
	return CanRollOnConfig(o.GVK.Kind) && o.Value.GetAnnotations()[RollOnConfig] == "true"
}

// CanRollOnConfig reports whether RollOnConfig has an effect on a kind: those that
// replace their pods when the template changes.
func CanRollOnConfig(kind string) bool {
	return kind == "Deployment" || kind == "StatefulSet" || kind == "DaemonSet"
}

// ConfigRefs returns the names of the ConfigMaps and Secrets that containers and
// volumes of a pod take values from, sorted. Those that only serve to fetch images
// are not among them: they are no part of what runs.
func ConfigRefs(spec *corev1.PodSpec) (configMaps, secrets []string) {
	r := configRefs{map[string]bool{}, map[string]bool{}}
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			r.container(&containers[i])
		}
	}
	for i := range spec.Volumes {
		r.volume(&spec.Volumes[i])
	}
	return slices.Sorted(maps.Keys(r.configMaps)), slices.Sorted(maps.Keys(r.secrets))
}

type configRefs struct{ configMaps, secrets map[string]bool }

func (r configRefs) container(c *corev1.Container) {
	for _, from := range c.EnvFrom {
		if from.ConfigMapRef != nil {
			r.configMaps[from.ConfigMapRef.Name] = true
		}
		if from.SecretRef != nil {
			r.secrets[from.SecretRef.Name] = true
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			continue
		}
		if ref := v.ValueFrom.ConfigMapKeyRef; ref != nil {
			r.configMaps[ref.Name] = true
		}
		if ref := v.ValueFrom.SecretKeyRef; ref != nil {
			r.secrets[ref.Name] = true
		}
	}
}

func (r configRefs) volume(v *corev1.Volume) {
	if v.ConfigMap != nil {
		r.configMaps[v.ConfigMap.Name] = true
	}
	if v.Secret != nil {
		r.secrets[v.Secret.SecretName] = true
	}
	if v.Projected == nil {
		return
	}
	for _, source := range v.Projected.Sources {
		if source.ConfigMap != nil {
			r.configMaps[source.ConfigMap.Name] = true
		}
		if source.Secret != nil {
			r.secrets[source.Secret.Name] = true
		}
	}
}
