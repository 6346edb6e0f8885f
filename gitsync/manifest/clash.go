package manifest

import (
	"cmp"
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// clashes reports the Services that claim what only one of them can have: the
// same clusterIP, or the same nodePort for one protocol. In Kubernetes the API
// server refuses the second one.
func clashes(objects []api.Object) []api.Invalid {
	var problems []api.Invalid
	taken := map[string]api.Object{}
	claim := func(object api.Object, field, what string) {
		first, twice := taken[what]
		if !twice {
			taken[what] = object
			return
		}
		problems = append(problems, api.Invalid{
			File: object.Source.File, Line: object.Source.Line, Object: object.Key().String(), Field: field,
			Reason: fmt.Sprintf("%s belongs to %s already, at %s:%d", what, first.Key(), first.Source.File, first.Source.Line),
		})
	}
	for _, object := range objects {
		service, ok := object.Value.(*corev1.Service)
		if !ok {
			continue
		}
		if ip := service.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
			claim(object, "spec.clusterIP", "the address "+ip)
		}
		for i, port := range service.Spec.Ports {
			if port.NodePort != 0 {
				claim(object, "spec.ports["+strconv.Itoa(i)+"].nodePort",
					fmt.Sprintf("port %d/%s of the nodes", port.NodePort, cmp.Or(port.Protocol, corev1.ProtocolTCP)))
			}
		}
	}
	return problems
}
