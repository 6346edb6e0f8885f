package manifest

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// finding is a field with what is wrong with it.
type finding struct {
	field, reason string
	warning       bool
}

// scopeRules indexes FieldScopes.
var scopeRules = func() map[reflect.Type]map[string]FieldScope {
	index := map[reflect.Type]map[string]FieldScope{}
	for _, f := range FieldScopes {
		if index[f.Of] == nil {
			index[f.Of] = map[string]FieldScope{}
		}
		index[f.Of][f.Field] = f
	}
	return index
}()

// checkScope returns the fields of an object, as its author wrote it, that are
// not served. Call it before defaulting: defaults set fields too.
func checkScope(object any) []finding {
	var found []finding
	walk("", reflect.ValueOf(object).Elem(), &found)
	return found
}

var unmarshalerType = reflect.TypeFor[json.Unmarshaler]()

// walk visits every field that is set. Values with a JSON form of their own
// (quantities, times) and maps hold no structs of interest.
func walk(path string, v reflect.Value, found *[]finding) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walk(path, v.Elem(), found)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), found)
		}
	case reflect.Struct:
		if !reflect.PointerTo(v.Type()).Implements(unmarshalerType) {
			walkStruct(path, v, found)
		}
	}
}

func walkStruct(path string, v reflect.Value, found *[]finding) {
	t := v.Type()
	served, limited := servedFields[t]
	for i := range t.NumField() {
		value := v.Field(i)
		if value.IsZero() {
			continue
		}
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name == "" { // inlined
			walk(path, value, found)
			continue
		}
		field := strings.TrimPrefix(path+"."+name, ".")
		if !limited || served[name] {
			walk(field, value, found)
			continue
		}
		if f, bad := judge(scopeRules[t][name], field, value); bad {
			*found = append(*found, f)
		}
	}
	if spec, ok := reflect.TypeAssert[corev1.PodSpec](v); ok {
		for i := range spec.Containers {
			if p := spec.Containers[i].RestartPolicy; p != nil && *p == corev1.ContainerRestartPolicyAlways {
				*found = append(*found, finding{fmt.Sprintf("%s.containers[%d].restartPolicy", path, i), "is planned, not served yet: only init containers have one of their own", false})
			}
		}
	}
	if context, ok := reflect.TypeAssert[corev1.PodSecurityContext](v); ok {
		for i, s := range context.Sysctls {
			if !safeSysctls[s.Name] {
				*found = append(*found, finding{fmt.Sprintf("%s.sysctls[%d].name", path, i), s.Name + " is planned, not served yet: of kernel parameters only those that Kubernetes calls safe are set", false})
			}
		}
	}
	if requirements, ok := reflect.TypeAssert[corev1.ResourceRequirements](v); ok {
		checkResources(path, requirements, found)
	}
	if dir, ok := reflect.TypeAssert[corev1.EmptyDirVolumeSource](v); ok && dir.SizeLimit != nil && dir.Medium == corev1.StorageMediumDefault {
		*found = append(*found, finding{path + ".sizeLimit", "is planned, not served yet: only the size of volumes in memory is limited", true})
	}
}

// judge applies the rule of a field, the zero rule included, to its value.
func judge(rule FieldScope, field string, value reflect.Value) (finding, bool) {
	text := fmt.Sprint(reflect.Indirect(value).Interface())
	if rule.Allow != "" && slices.Contains(strings.Fields(rule.Allow), text) {
		return finding{}, false
	}
	if rule.Field == "" {
		return finding{field: field, reason: "is not served: Shoal does not know this field of Kubernetes yet"}, true
	}
	subject := "is"
	if rule.Allow != "" {
		subject = text + " is"
	}
	verdict := "planned, not served yet"
	if rule.Verdict == Out {
		verdict = "out of scope"
	}
	return finding{field, fmt.Sprintf("%s %s: %s", subject, verdict, rule.Reason), rule.Warning}, true
}

// safeSysctls are the kernel parameters that a pod may set for itself without harm
// to others. Source: Kubernetes, "Using sysctls in a Kubernetes Cluster".
var safeSysctls = names("kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.tcp_syncookies net.ipv4.ping_group_range " +
	"net.ipv4.ip_unprivileged_port_start net.ipv4.ip_local_reserved_ports net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout " +
	"net.ipv4.tcp_keepalive_intvl net.ipv4.tcp_keepalive_probes net.ipv4.tcp_rmem net.ipv4.tcp_wmem")

// checkResources knows which resources exist on a node.
func checkResources(path string, r corev1.ResourceRequirements, found *[]finding) {
	for _, part := range []struct {
		name string
		list corev1.ResourceList
	}{{"limits", r.Limits}, {"requests", r.Requests}} {
		for _, name := range resourceNames(part.list) {
			field := fmt.Sprintf("%s.%s[%s]", path, part.name, name)
			switch name {
			case corev1.ResourceCPU, corev1.ResourceMemory:
			case corev1.ResourceEphemeralStorage:
				if part.name == "limits" {
					*found = append(*found, finding{field, "is planned, not served yet: the limit is counted when placing the pod, not enforced", true})
				}
			default:
				*found = append(*found, finding{field, "is planned, not served yet: nodes offer cpu, memory and ephemeral-storage", false})
			}
		}
	}
}

func resourceNames(list corev1.ResourceList) []corev1.ResourceName {
	out := make([]corev1.ResourceName, 0, len(list))
	for name := range list {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
