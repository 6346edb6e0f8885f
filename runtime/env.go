package runtime

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// Sources are what environment variables and volumes of a pod take values from.
type Sources struct {
	Desired     Desired
	Pod         *corev1.Pod
	Config      *Config             // of the pod's revision; nil: that of Desired
	IPs         []string            // of the pod; nil while it has none
	Allocatable corev1.ResourceList // of the node, where a container has no limit
}

// Env returns a container's environment, NAME=value, in the order Kubernetes
// gives it: Services, envFrom, env; the last of a name wins. A reference to
// something absent, unless optional, is an error.
func Env(s Sources, c *corev1.Container) ([]string, error) {
	e := environment{values: map[string]string{}}
	links := s.Pod.Spec.EnableServiceLinks == nil || *s.Pod.Spec.EnableServiceLinks
	for _, service := range s.Desired.Services {
		if links && service.Namespace == s.Pod.Namespace ||
			service.Namespace == "default" && service.Name == "kubernetes" {
			e.service(service)
		}
	}
	for _, from := range c.EnvFrom {
		if err := e.from(s, from); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		if v.ValueFrom == nil {
			e.set(v.Name, Expand(v.Value, e.lookup))
			continue
		}
		value, found, err := s.value(c, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", v.Name, err)
		}
		if found {
			e.set(v.Name, value)
		}
	}
	return e.list(), nil
}

// ConfigMap returns the ConfigMap of a name that the pod refers to.
func (s Sources) ConfigMap(name string) (object *corev1.ConfigMap, found bool) {
	if s.Config == nil {
		object, found = s.Desired.ConfigMaps[s.named(name)]
		return object, found
	}
	i := slices.IndexFunc(s.Config.ConfigMaps, func(m *corev1.ConfigMap) bool { return m.Name == name })
	if i < 0 {
		return nil, false
	}
	return s.Config.ConfigMaps[i], true
}

// Secret returns the Secret of a name that the pod refers to.
func (s Sources) Secret(name string) (object *corev1.Secret, found bool) {
	if s.Config == nil {
		object, found = s.Desired.Secrets[s.named(name)]
		return object, found
	}
	i := slices.IndexFunc(s.Config.Secrets, func(m *corev1.Secret) bool { return m.Name == name })
	if i < 0 {
		return nil, false
	}
	return s.Config.Secrets[i], true
}

// NeedsIP reports whether the container's environment holds the pod's address,
// so that it cannot be made before the network is up.
func NeedsIP(c *corev1.Container) bool {
	return slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
		return v.ValueFrom != nil && v.ValueFrom.FieldRef != nil &&
			strings.HasPrefix(v.ValueFrom.FieldRef.FieldPath, "status.podIP")
	})
}

type environment struct {
	order  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if _, seen := e.values[name]; !seen {
		e.order = append(e.order, name)
	}
	e.values[name] = value
}

func (e *environment) lookup(name string) (string, bool) {
	value, found := e.values[name]
	return value, found
}

func (e *environment) list() []string {
	out := make([]string, 0, len(e.order))
	for _, name := range e.order {
		out = append(out, name+"="+e.values[name])
	}
	return out
}

// service adds the variables of a Service.
// Source: kubernetes.io, Service, "Environment variables".
func (e *environment) service(s *corev1.Service) {
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
		return
	}
	name := strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
	first := s.Spec.Ports[0]
	e.set(name+"_SERVICE_HOST", s.Spec.ClusterIP)
	e.set(name+"_SERVICE_PORT", itoa(int64(first.Port)))
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			e.set(name+"_SERVICE_PORT_"+strings.ToUpper(strings.ReplaceAll(p.Name, "-", "_")), itoa(int64(p.Port)))
		}
	}
	for i, p := range s.Spec.Ports {
		protocol := string(p.Protocol)
		if protocol == "" {
			protocol = "TCP"
		}
		url := fmt.Sprintf("%s://%s:%d", strings.ToLower(protocol), s.Spec.ClusterIP, p.Port)
		if i == 0 {
			e.set(name+"_PORT", url)
		}
		prefix := fmt.Sprintf("%s_PORT_%d_%s", name, p.Port, protocol)
		e.set(prefix, url)
		e.set(prefix+"_PROTO", strings.ToLower(protocol))
		e.set(prefix+"_PORT", itoa(int64(p.Port)))
		e.set(prefix+"_ADDR", s.Spec.ClusterIP)
	}
}

func (e *environment) from(s Sources, from corev1.EnvFromSource) error {
	values := map[string]string{}
	switch {
	case from.ConfigMapRef != nil:
		ref := from.ConfigMapRef
		object, found := s.ConfigMap(ref.Name)
		if !found && !isTrue(ref.Optional) {
			return fmt.Errorf("configmap %q not found", ref.Name)
		}
		if found {
			values = object.Data
		}
	case from.SecretRef != nil:
		ref := from.SecretRef
		object, found := s.Secret(ref.Name)
		if !found && !isTrue(ref.Optional) {
			return fmt.Errorf("secret %q not found", ref.Name)
		}
		if found {
			values = secretStrings(object)
		}
	}
	for _, key := range sortedKeys(values) {
		e.set(from.Prefix+key, values[key])
	}
	return nil
}

func (s Sources) named(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Pod.Namespace, Name: name}
}

// value resolves one valueFrom. found is false for an optional reference to
// something absent.
func (s Sources) value(c *corev1.Container, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = s.Field(from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		value, err = s.Resource(c, from.ResourceFieldRef)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		object, exists := s.ConfigMap(ref.Name)
		if exists {
			value, found = object.Data[ref.Key]
		}
		return value, found, absent("configmap", ref.Name, ref.Key, exists, found || isTrue(ref.Optional))
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		object, exists := s.Secret(ref.Name)
		if exists {
			value, found = secretStrings(object)[ref.Key]
		}
		return value, found, absent("secret", ref.Name, ref.Key, exists, found || isTrue(ref.Optional))
	}
	return "", false, fmt.Errorf("valueFrom names no source that is known")
}

func absent(kind, name, key string, exists, ok bool) error {
	switch {
	case ok:
		return nil
	case !exists:
		return fmt.Errorf("%s %q not found", kind, name)
	default:
		return fmt.Errorf("couldn't find key %s in %s %q", key, kind, name)
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func secretStrings(s *corev1.Secret) map[string]string {
	out := make(map[string]string, len(s.Data)+len(s.StringData))
	for k, v := range SecretData(s) {
		out[k] = string(v)
	}
	return out
}

// SecretData returns a Secret's data with stringData over it, as the API server
// would have stored it.
func SecretData(s *corev1.Secret) map[string][]byte {
	if len(s.StringData) == 0 {
		return s.Data
	}
	out := make(map[string][]byte, len(s.Data)+len(s.StringData))
	maps.Copy(out, s.Data)
	for k, v := range s.StringData {
		out[k] = []byte(v)
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Expand replaces $(NAME) by the value that lookup knows; a reference to an
// unknown name stays as it is, and $$ is a dollar sign.
// Source: kubernetes.io, Define Dependent Environment Variables.
func Expand(s string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			out.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i:], ')')
			if end < 0 {
				out.WriteByte('$')
				continue
			}
			reference := s[i : i+end+1]
			if value, found := lookup(reference[2 : len(reference)-1]); found {
				reference = value
			}
			out.WriteString(reference)
			i += end
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}

// ExpandAll expands every word with an environment as Env returns it.
func ExpandAll(words, env []string) []string {
	if words == nil {
		return nil
	}
	values := make(map[string]string, len(env))
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = Expand(w, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
	}
	return out
}
