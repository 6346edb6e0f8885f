package manifest

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
)

// configurationForm names the canonical form below, as revisionForm does.
const configurationForm = "shoal pod template and configuration 1\n"

// configuration is what the ConfigMaps and Secrets of a pod template hold, by name.
// One that is missing is not in it, whether it may be or not: it has an effect when
// it comes. Labels and annotations, the type of a Secret and immutable are not
// either: no pod sees them.
type configuration struct {
	ConfigMaps map[string]configMapData     `json:"configMaps"`
	Secrets    map[string]map[string][]byte `json:"secrets"`
}

type configMapData struct {
	Data       map[string]string `json:"data,omitempty"`
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
}

// mixConfiguration makes the revisions of workloads that roll on it cover their
// configuration, too. The others keep theirs.
func mixConfiguration(objects []api.Object) {
	var byKey map[api.Key]api.KubeObject
	for i := range objects {
		o := &objects[i]
		if !api.RollsOnConfig(*o) {
			continue
		}
		if byKey == nil { // few commits need it
			byKey = sourcesOf(objects)
		}
		spec, _ := podSpec(o.Value)
		data, err := json.Marshal(configurationOf(spec, o.Value.GetNamespace(), byKey)) // sorts the names
		if err == nil {                                                                 // it always is: maps of text
			o.Revision = api.SafeHash(configurationForm+o.Revision+"\n"+string(data), 10)
		}
	}
}

// sourcesOf returns the ConfigMaps and Secrets among objects.
func sourcesOf(objects []api.Object) map[api.Key]api.KubeObject {
	out := map[api.Key]api.KubeObject{}
	for _, o := range objects {
		switch o.Value.(type) {
		case *corev1.ConfigMap, *corev1.Secret:
			out[o.Key()] = o.Value
		}
	}
	return out
}

func configurationOf(spec *corev1.PodSpec, namespace string, sources map[api.Key]api.KubeObject) configuration {
	out := configuration{ConfigMaps: map[string]configMapData{}, Secrets: map[string]map[string][]byte{}}
	configMaps, secrets := api.ConfigRefs(spec)
	for _, name := range configMaps {
		if m, ok := sources[api.Key{Kind: "ConfigMap", Namespace: namespace, Name: name}].(*corev1.ConfigMap); ok {
			out.ConfigMaps[name] = configMapData{m.Data, m.BinaryData}
		}
	}
	for _, name := range secrets {
		if s, ok := sources[api.Key{Kind: "Secret", Namespace: namespace, Name: name}].(*corev1.Secret); ok {
			out.Secrets[name] = s.Data // stringData is in it: see internal/kube
		}
	}
	return out
}

// checkRollOnConfig says where the annotation is not what its author meant.
func checkRollOnConfig(value api.KubeObject, kind string) []finding {
	const field = "annotations[" + api.RollOnConfig + "]"
	var found []finding
	if text, written := value.GetAnnotations()[api.RollOnConfig]; written {
		switch {
		case text != "true" && text != "false":
			found = append(found, finding{field: "metadata." + field, reason: fmt.Sprintf(`must be "true" or "false", not %q`, text)})
		case !api.CanRollOnConfig(kind):
			found = append(found, finding{
				field: "metadata." + field, warning: true,
				reason: "has no effect: only Deployments, StatefulSets and DaemonSets replace their pods when configuration changes",
			})
		}
	}
	if template, path := podTemplate(value); template != nil {
		if _, written := template.Annotations[api.RollOnConfig]; written {
			found = append(found, finding{
				field: path + ".metadata." + field, warning: true, reason: "has no effect on a pod template: write it into the metadata of the workload",
			})
		}
	}
	return found
}
