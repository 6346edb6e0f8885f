package runtime

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Security is what a container may do: the container's security context over
// the pod's.
type Security struct {
	User            *int64 // nil: the image's
	Group           *int64
	NonRoot         bool
	Groups          []int64
	StrictGroups    bool // the image's own groups are left out
	Privileged      bool
	ReadOnlyRoot    bool
	NoNewPrivileges bool
	AddCaps         []string // without CAP_; "ALL" is all
	DropCaps        []string
	Seccomp         corev1.SeccompProfileType  // "" means RuntimeDefault
	SeccompFile     string                     // of Localhost, below the node's folder of profiles
	AppArmor        corev1.AppArmorProfileType // "" means RuntimeDefault, where the machine has AppArmor
	AppArmorProfile string                     // of Localhost: one that the node has loaded
	UnmaskedProc    bool
}

// Secure returns what a container may do. What nobody asks for it does not get:
// unlike in Kubernetes, where allowPrivilegeEscalation is true unless it is said
// otherwise, its processes gain no privileges by the programs they run.
// Source: kubernetes.io, Configure a Security Context for a Pod or Container.
func Secure(spec *corev1.PodSpec, c *corev1.Container) Security {
	pod, own := spec.SecurityContext, c.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	out := Security{
		User:         or(own.RunAsUser, pod.RunAsUser),
		Group:        or(own.RunAsGroup, pod.RunAsGroup),
		NonRoot:      isTrue(or(own.RunAsNonRoot, pod.RunAsNonRoot)),
		Groups:       slices.Clone(pod.SupplementalGroups),
		StrictGroups: pod.SupplementalGroupsPolicy != nil && *pod.SupplementalGroupsPolicy == corev1.SupplementalGroupsPolicyStrict,
		Privileged:   isTrue(own.Privileged),
		ReadOnlyRoot: isTrue(own.ReadOnlyRootFilesystem),
		UnmaskedProc: own.ProcMount != nil && *own.ProcMount == corev1.UnmaskedProcMount,
	}
	if pod.FSGroup != nil {
		out.Groups = append(out.Groups, *pod.FSGroup)
	}
	if own.Capabilities != nil {
		for _, c := range own.Capabilities.Add {
			out.AddCaps = append(out.AddCaps, string(c))
		}
		for _, c := range own.Capabilities.Drop {
			out.DropCaps = append(out.DropCaps, string(c))
		}
	}
	out.NoNewPrivileges = !out.Privileged && !slices.Contains(out.AddCaps, "SYS_ADMIN") && !isTrue(own.AllowPrivilegeEscalation)
	if profile := or(own.SeccompProfile, pod.SeccompProfile); profile != nil {
		out.Seccomp = profile.Type
		if profile.LocalhostProfile != nil {
			out.SeccompFile = *profile.LocalhostProfile
		}
	}
	if profile := or(own.AppArmorProfile, pod.AppArmorProfile); profile != nil {
		out.AppArmor = profile.Type
		if profile.LocalhostProfile != nil {
			out.AppArmorProfile = *profile.LocalhostProfile
		}
	}
	return out
}

func or[T any](first, second *T) *T {
	if first != nil {
		return first
	}
	return second
}
