package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	armor "github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// secure gives the process its capabilities, its system call filter and its
// AppArmor profile.
func (e *Engine) secure(ctx context.Context, out *specs.Spec, s runtime.Security) error {
	caps, err := capabilities(s)
	if err != nil {
		return err
	}
	out.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if out.Process.ApparmorProfile, err = appArmor(s, e.armor); err != nil {
		return err
	}
	if s.Privileged {
		out.Process.NoNewPrivileges = false
		out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = nil, nil
		return oci.Compose(oci.WithHostDevices, oci.WithAllDevicesAllowed)(ctx, nil, nil, out)
	}
	switch s.Seccomp {
	case corev1.SeccompProfileTypeUnconfined:
	case "", corev1.SeccompProfileTypeRuntimeDefault:
		out.Linux.Seccomp = seccomp.DefaultProfile(out)
	case corev1.SeccompProfileTypeLocalhost:
		out.Linux.Seccomp, err = localProfile(e.cfg.SeccompDir, s.SeccompFile)
	default:
		err = fmt.Errorf("%w: seccomp profiles of type %s are not supported", runtime.ErrConfig, s.Seccomp)
	}
	return err
}

// maxProfile bounds a seccomp profile, in bytes.
const maxProfile = 1 << 20

// localProfile reads a seccomp profile, as the OCI runtime specification writes it,
// from a file below dir.
func localProfile(dir, name string) (*specs.LinuxSeccomp, error) {
	fail := func(err error) (*specs.LinuxSeccomp, error) {
		return nil, fmt.Errorf("%w: seccomp profile %s below %s on this node: %w", runtime.ErrConfig, name, dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	file, err := root.Open(name)
	if err != nil {
		return fail(err)
	}
	defer file.Close() //nolint:errcheck // only read
	raw, err := io.ReadAll(io.LimitReader(file, maxProfile))
	if err != nil {
		return fail(err)
	}
	var out specs.LinuxSeccomp
	if err := json.Unmarshal(raw, &out); err != nil {
		return fail(err)
	}
	if out.DefaultAction == "" {
		return fail(fmt.Errorf("it has no defaultAction"))
	}
	return &out, nil
}

// armory is what a machine can do with AppArmor.
type armory struct {
	usual  string                    // the profile of containers that ask for none; "" without AppArmor
	broken error                     // why there is no usual one, though the machine has AppArmor
	loaded func(profile string) bool // nil: the machine has no AppArmor
}

// usualProfile is the AppArmor profile of containers that ask for none.
const usualProfile = "shoal-default"

// readArmory finds out what the machine can do, and loads the usual profile.
func readArmory() armory {
	if !apparmor.HostSupports() {
		return armory{}
	}
	out := armory{usual: usualProfile, loaded: func(profile string) bool {
		list, err := os.ReadFile("/sys/kernel/security/apparmor/profiles")
		return err == nil && slices.ContainsFunc(strings.Split(string(list), "\n"), func(line string) bool { return strings.HasPrefix(line, profile+" (") })
	}}
	if err := armor.LoadDefaultProfile(usualProfile); err != nil {
		out.usual, out.broken = "", err
	}
	return out
}

// appArmor returns the profile of a container, "" for none.
// Source: kubernetes.io, Restrict a Container's Access to Resources with AppArmor.
func appArmor(s runtime.Security, has armory) (string, error) {
	if s.Privileged && s.AppArmor == "" || s.AppArmor == corev1.AppArmorProfileTypeUnconfined {
		return "", nil
	}
	switch {
	case s.AppArmor == "":
		return has.usual, nil
	case has.loaded == nil:
		return "", fmt.Errorf("%w: cannot enforce AppArmor: AppArmor is not enabled on the host", runtime.ErrConfig)
	case s.AppArmor == corev1.AppArmorProfileTypeRuntimeDefault && has.broken != nil:
		return "", fmt.Errorf("%w: cannot load the AppArmor profile %s: %w", runtime.ErrConfig, usualProfile, has.broken)
	case s.AppArmor == corev1.AppArmorProfileTypeRuntimeDefault:
		return has.usual, nil
	case !has.loaded(s.AppArmorProfile):
		return "", fmt.Errorf("%w: the AppArmor profile %s is not loaded on this node", runtime.ErrConfig, s.AppArmorProfile)
	}
	return s.AppArmorProfile, nil
}

// usualCaps are the capabilities of a container that asks for none: those that
// programs need which begin as root and give it up. It is the list of CRI-O, which
// is containerd's without raw sockets, device nodes, chroot, file capabilities and
// the audit log.
var usualCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE",
	"CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
}

// capabilities applies drop, then add, to the usual ones. Source: kubernetes.io,
// Configure a Security Context, "Set capabilities for a Container".
func capabilities(s runtime.Security) ([]string, error) {
	every, err := cap.Current()
	if err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	slices.Sort(every)
	if s.Privileged {
		return every, nil
	}
	full := func(c string) string {
		c = strings.ToUpper(c)
		if !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		return c
	}
	out := slices.Clone(usualCaps)
	for _, c := range s.DropCaps {
		if full(c) == "CAP_ALL" {
			out = nil
		}
		out = slices.DeleteFunc(out, func(have string) bool { return have == full(c) })
	}
	for _, c := range s.AddCaps {
		if full(c) == "CAP_ALL" {
			out = slices.Clone(every)
			for _, drop := range s.DropCaps {
				out = slices.DeleteFunc(out, func(have string) bool { return have == full(drop) })
			}
		} else {
			out = append(out, full(c))
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}
