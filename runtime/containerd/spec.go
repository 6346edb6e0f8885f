package containerd

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shoal-dev/shoal/runtime"
)

// shimGroup is the annotation by which containers share a shim.
const shimGroup = "io.containerd.runc.v2.group"

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// spec returns the OCI specification of a container. rootfs is where its image
// can be read, for the names of users.
func (e *Engine) spec(s runtime.ContainerSpec, own *image, rootfs []mount.Mount) (*specs.Spec, error) {
	ctx := namespaces.WithNamespace(context.Background(), e.cfg.Namespace)
	out, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: s.ID})
	if err != nil {
		return nil, err
	}
	if out.Process.Args, err = arguments(s, own); err != nil {
		return nil, err
	}
	out.Process.Env = environment(s, own)
	out.Process.Cwd = workingDir(s, own)
	out.Process.Terminal = s.TTY
	out.Process.NoNewPrivileges = s.Security.NoNewPrivileges
	out.Process.Rlimits = nil // as containerd's own
	if out.Process.User, err = user(s.Security, own.config.User, rootfs); err != nil {
		return nil, err
	}
	adj := max(e.minOOM, s.Resources.OOMScoreAdj)
	out.Process.OOMScoreAdj = &adj
	out.Root.Readonly = s.Security.ReadOnlyRoot

	out.Hostname = "" // the joined namespace has it
	out.Linux.Namespaces = joined(s.Namespaces)
	out.Linux.CgroupsPath = e.cgroup(s.Assignment.Pod.Instance, s.Name, s.ID)
	devices := out.Linux.Resources.Devices
	out.Linux.Resources = linuxResources(s.Resources)
	out.Linux.Resources.Devices = devices
	out.Linux.Sysctl = s.Sysctls
	out.Mounts = append(system(s.Security.Privileged), binds(s.Mounts)...)
	out.Linux.RootfsPropagation = spread(s.Mounts)
	out.Annotations = map[string]string{shimGroup: s.Assignment.Pod.Instance}
	if s.Security.UnmaskedProc {
		out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = nil, nil
	}
	if err := e.secure(ctx, out, s.Security); err != nil {
		return nil, err
	}
	return out, nil
}

// arguments follows Kubernetes' table of command and args.
// Source: kubernetes.io, Define a Command and Arguments for a Container.
func arguments(s runtime.ContainerSpec, own *image) ([]string, error) {
	entrypoint, args := own.config.Entrypoint, own.config.Cmd
	if len(s.Command) > 0 {
		entrypoint, args = s.Command, nil
	}
	if len(s.Args) > 0 {
		args = s.Args
	}
	all := slices.Concat(entrypoint, args)
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: neither the container nor its image says what to run", runtime.ErrConfig)
	}
	return all, nil
}

// environment lays the container's variables over the image's.
func environment(s runtime.ContainerSpec, own *image) []string {
	var order []string
	values := map[string]string{}
	for _, v := range slices.Concat([]string{defaultPath, "HOSTNAME=" + s.Hostname}, own.config.Env, s.Env) {
		name, _, found := strings.Cut(v, "=")
		if !found || name == "" {
			continue
		}
		if _, seen := values[name]; !seen {
			order = append(order, name)
		}
		values[name] = v
	}
	out := make([]string, len(order))
	for i, name := range order {
		out[i] = values[name]
	}
	if s.TTY {
		out = append(out, "TERM=xterm")
	}
	return out
}

func workingDir(s runtime.ContainerSpec, own *image) string {
	for _, dir := range []string{s.WorkingDir, own.config.WorkingDir} {
		if dir != "" {
			return path.Join("/", dir)
		}
	}
	return "/"
}

func joined(n runtime.Namespaces) []specs.LinuxNamespace {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	if !n.HostPID {
		out = append(out, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: n.PID})
	}
	for _, ns := range []specs.LinuxNamespace{
		{Type: specs.NetworkNamespace, Path: n.Net},
		{Type: specs.IPCNamespace, Path: n.IPC},
		{Type: specs.UTSNamespace, Path: n.UTS},
	} {
		if ns.Path != "" {
			out = append(out, ns)
		}
	}
	return out
}

// system returns the mounts that every container has.
func system(privileged bool) []specs.Mount {
	access := "ro"
	if privileged {
		access = "rw"
	}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{
			Destination: "/dev/pts", Type: "devpts", Source: "devpts",
			Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}},
		{
			Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup",
			Options: []string{"nosuid", "noexec", "nodev", "relatime", access},
		},
	}
}

// binds orders mounts so that none hides another that is mounted within it.
func binds(mounts []runtime.Mount) []specs.Mount {
	sorted := slices.Clone(mounts)
	slices.SortStableFunc(sorted, func(a, b runtime.Mount) int {
		return strings.Count(path.Clean(a.Target), "/") - strings.Count(path.Clean(b.Target), "/")
	})
	var out []specs.Mount
	for _, m := range sorted {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		propagation := m.Propagation
		if propagation == "" {
			propagation = "rprivate"
		}
		if m.ReadOnly && m.Recursive {
			access = "rro"
		}
		out = append(out, specs.Mount{
			Destination: path.Join("/", m.Target), Type: "bind", Source: m.Source,
			Options: append([]string{"rbind", propagation, access}, m.Options...),
		})
	}
	return out
}

// spread returns how mounts spread between the machine and a container: as far as
// any of its mounts needs it.
func spread(mounts []runtime.Mount) string {
	out := ""
	for _, m := range mounts {
		switch m.Propagation {
		case "rshared":
			return "rshared"
		case "rslave":
			out = "rslave"
		}
	}
	return out
}
