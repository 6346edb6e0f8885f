package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/shoal-dev/shoal/internal/loop"
)

// Marks are the labels and taints that an operator gives a node, beside those
// that the node finds out by itself.
type Marks struct {
	Labels map[string]string
	Taints []corev1.Taint // sorted by key, then effect
}

// Marks reads the labels and taints of the node. The error names every mistake,
// with the setting and what to do about it.
func (c Config) Marks() (Marks, error) {
	labels, errLabels := parseLabels(c.NodeLabels)
	taints, errTaints := parseTaints(c.NodeTaints)
	return Marks{Labels: labels, Taints: taints}, errors.Join(errLabels, errTaints)
}

// found are the labels that a node gives itself: what the machine is.
func found(node, architecture string) map[string]string {
	return map[string]string{corev1.LabelHostname: node, corev1.LabelOSStable: "linux", corev1.LabelArchStable: architecture}
}

// labels are those of the operator and those that the node gives itself.
func (m Marks) labels(own map[string]string) map[string]string {
	maps.Copy(own, m.Labels)
	return own
}

func parseLabels(list []string) (map[string]string, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("nodeLabels: "+format, args...)) }
	out := map[string]string{}
	for _, entry := range list {
		key, value, pair := strings.Cut(strings.TrimSpace(entry), "=")
		if !pair {
			wrong("%q is no key=value", entry)
			continue
		}
		if problems := validation.IsQualifiedName(key); len(problems) > 0 {
			wrong("%q is no key of a label: %s", key, problems[0])
		} else if why := reservedLabel(key); why != "" {
			wrong("%q %s", key, why)
		}
		if problems := validation.IsValidLabelValue(value); len(problems) > 0 {
			wrong("%q of %s is no value of a label: %s", value, key, problems[0])
		}
		if former, twice := out[key]; twice && former != value {
			wrong("%s is both %q and %q: name it once", key, former, value)
		}
		out[key] = value
	}
	return out, errors.Join(errs...)
}

// reservedLabel says why nobody may set a label of a node, "" when somebody may.
// As a kubelet does, a node takes of the names that belong to Kubernetes those
// that are there for it. Roles are among them here: there is nobody else who could
// set them.
// Source: Kubernetes, "kubelet", --node-labels.
func reservedLabel(key string) string {
	prefix, _, prefixed := strings.Cut(key, "/")
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable:
		return "is set by the node itself: leave it out"
	case corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
		corev1.LabelInstanceType, corev1.LabelInstanceTypeStable:
		return ""
	}
	within := func(domain string) bool { return prefix == domain || strings.HasSuffix(prefix, "."+domain) }
	switch {
	case !prefixed || !within("kubernetes.io") && !within("k8s.io"):
		return ""
	case within("node.kubernetes.io") || within("kubelet.kubernetes.io") || prefix == "node-role.kubernetes.io":
		return ""
	}
	return "belongs to Kubernetes: of kubernetes.io and k8s.io only topology.kubernetes.io/zone and region, node.kubernetes.io/*, " +
		"kubelet.kubernetes.io/* and node-role.kubernetes.io/* may be set; use a prefix of your own"
}

// taintEffects are those that there are.
var taintEffects = []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}

// parseTaints reads taints as a kubelet's --register-with-taints has them:
// key=value:Effect or key:Effect, no two with one key and one effect.
func parseTaints(list []string) ([]corev1.Taint, error) {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("nodeTaints: "+format, args...)) }
	var out []corev1.Taint
	for _, entry := range list {
		name, effect, pair := strings.Cut(strings.TrimSpace(entry), ":")
		if !pair {
			wrong("%q is neither key=value:Effect nor key:Effect", entry)
			continue
		}
		taint := corev1.Taint{Effect: corev1.TaintEffect(effect)}
		taint.Key, taint.Value, _ = strings.Cut(name, "=")
		if problems := validation.IsQualifiedName(taint.Key); len(problems) > 0 {
			wrong("%q is no key of a taint: %s", taint.Key, problems[0])
		} else if prefix, _, _ := strings.Cut(taint.Key, "/"); prefix == "node.kubernetes.io" || prefix == "fleet.shoal.dev" {
			wrong("%q is set by the fleet itself, and says how a node is: use a prefix of your own", taint.Key)
		}
		if problems := validation.IsValidLabelValue(taint.Value); len(problems) > 0 {
			wrong("%q of %s is no value of a taint: %s", taint.Value, taint.Key, problems[0])
		}
		if !slices.Contains(taintEffects, taint.Effect) {
			wrong("%q of %s is none of NoSchedule, PreferNoSchedule, NoExecute", effect, taint.Key)
		}
		if slices.ContainsFunc(out, func(other corev1.Taint) bool { return other.MatchTaint(&taint) }) {
			wrong("%s:%s is there twice: a key may have each effect once", taint.Key, effect)
		}
		out = append(out, taint)
	}
	slices.SortFunc(out, func(a, b corev1.Taint) int {
		return strings.Compare(a.Key+" "+string(a.Effect), b.Key+" "+string(b.Effect))
	})
	return out, errors.Join(errs...)
}

// follow takes over, of configurations that come while the daemon runs, what may
// change then: the labels and taints of the node. One that cannot work changes
// nothing.
func (c *control) follow(ctx context.Context, changes <-chan Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case cfg := <-changes:
			marks, err := cfg.Marks()
			c.report("read the changed labels and taints of this node", err)
			if err == nil {
				c.marks.Store(&marks)
				loop.Poke(c.lookPoke)
			}
		}
	}
}
