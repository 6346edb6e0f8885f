package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// volumeEvents tells of claims that were bound, and of volumes that were given up.
func volumeEvents(fleet string, before, after api.Facts, now time.Time) []api.Event {
	var out []api.Event
	add := func(name, reason, format string, args ...any) {
		id, _ := api.ParseVolumeClaim(name)
		out = append(out, api.Event{
			Time: now, Type: corev1.EventTypeNormal, Reason: reason, Message: fmt.Sprintf(format, args...), Source: "scheduler",
			Regards: referenceTo(fleet, api.Key{Kind: id.Kind, Namespace: id.Namespace, Name: id.Owner}),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(after.Volumes)) {
		if v := after.Volumes[name]; before.Volumes[name].Claim != v.Claim {
			id, _ := api.ParseVolumeClaim(name)
			add(name, "ProvisioningSucceeded", "Volume %s is on node %s", volumeObjectName(id, v.Claim), v.Node)
		}
	}
	for _, d := range after.Discards {
		if !before.Discarded(d.Identity, d.Claim) {
			id, _ := api.ParseVolumeClaim(d.Identity)
			add(d.Identity, "VolumeDelete", "Volume %s on node %s is given up, with its data: its StatefulSet says so", volumeObjectName(id, d.Claim), d.Node)
		}
	}
	return out
}
