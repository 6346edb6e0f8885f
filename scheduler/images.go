package scheduler

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// Images returns the names of all images that the pods of a snapshot would run
// from, as they are written, sorted. Which node would run them does not matter.
func Images(snapshot api.Snapshot) []string {
	names := map[string]bool{}
	for object := range snapshot.Objects() {
		template := templateOf(object)
		if template == nil {
			continue
		}
		for _, containers := range [][]corev1.Container{template.Spec.InitContainers, template.Spec.Containers} {
			for i := range containers {
				names[containers[i].Image] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
