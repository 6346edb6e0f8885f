package containerd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

func TestCapabilities(t *testing.T) {
	without := func(c string) []string {
		return slices.DeleteFunc(slices.Clone(usualCaps), func(have string) bool { return have == c })
	}
	for _, c := range []struct {
		security runtime.Security
		want     []string
	}{
		{runtime.Security{}, usualCaps},
		{runtime.Security{DropCaps: []string{"ALL"}, AddCaps: []string{"NET_ADMIN"}}, []string{"CAP_NET_ADMIN"}},
		{runtime.Security{DropCaps: []string{"kill"}}, without("CAP_KILL")},
		{runtime.Security{AddCaps: []string{"CAP_KILL", "SYS_TIME"}}, slices.Insert(slices.Clone(usualCaps), len(usualCaps), "CAP_SYS_TIME")},
	} {
		got, err := capabilities(c.security)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%+v: got %q, %v; want %q", c.security, got, err, c.want)
		}
	}
	every, err := capabilities(runtime.Security{Privileged: true})
	if err != nil || len(every) < 20 {
		t.Errorf("privileged: got %q, %v", every, err)
	}
}

// A machine without AppArmor runs what does not ask for it, and says why it does
// not run what does.
func TestAppArmor(t *testing.T) {
	loaded := func(profile string) bool { return profile == "own" }
	with, without := armory{usual: usualProfile, loaded: loaded}, armory{}
	broken := armory{loaded: loaded, broken: errors.New("no apparmor_parser")}
	const usual, local, none = corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeUnconfined
	for _, tt := range []struct {
		name     string
		security runtime.Security
		machine  armory
		want     string
		err      string
	}{
		{"nothing said", runtime.Security{}, with, usualProfile, ""},
		{"nothing said", runtime.Security{}, without, "", ""},
		{"nothing said", runtime.Security{}, broken, "", ""},
		{"privileged", runtime.Security{Privileged: true}, with, "", ""},
		{"privileged, confined", runtime.Security{Privileged: true, AppArmor: usual}, with, usualProfile, ""},
		{"usual", runtime.Security{AppArmor: usual}, with, usualProfile, ""},
		{"usual", runtime.Security{AppArmor: usual}, without, "", "AppArmor is not enabled on the host"},
		{"usual", runtime.Security{AppArmor: usual}, broken, "", "no apparmor_parser"},
		{"none", runtime.Security{AppArmor: none}, with, "", ""},
		{"none", runtime.Security{AppArmor: none}, without, "", ""},
		{"own", runtime.Security{AppArmor: local, AppArmorProfile: "own"}, with, "own", ""},
		{"own", runtime.Security{AppArmor: local, AppArmorProfile: "own"}, without, "", "AppArmor is not enabled on the host"},
		{"other", runtime.Security{AppArmor: local, AppArmorProfile: "other"}, with, "", "other is not loaded on this node"},
	} {
		got, err := appArmor(tt.security, tt.machine)
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil && (!strings.Contains(err.Error(), tt.err) || !errors.Is(err, runtime.ErrConfig)) {
			t.Errorf("%s with %+v: got %q, %v; want %q, %q", tt.name, tt.machine, got, err, tt.want, tt.err)
		}
	}
}

func TestLocalProfile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"seccomp/good.json":  `{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}`,
		"seccomp/empty.json": `{}`,
		"seccomp/not.json":   `defaultAction`,
		"secret.json":        `{"defaultAction": "SCMP_ACT_ALLOW"}`,
	} {
		if err := os.MkdirAll(filepath.Join(dir, "seccomp"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../secret.json", filepath.Join(dir, "seccomp", "link.json")); err != nil {
		t.Fatal(err)
	}
	below := filepath.Join(dir, "seccomp")
	got, err := localProfile(below, "good.json")
	if err != nil || got.DefaultAction != specs.ActAllow || len(got.Syscalls) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, want := range map[string]string{
		"empty.json": "no defaultAction", "not.json": "invalid character", "none.json": "no such file",
		"link.json": "escapes", "../secret.json": "escapes",
	} {
		if got, err := localProfile(below, name); !errors.Is(err, runtime.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, want)
		}
	}
}

func TestMountOptions(t *testing.T) {
	got := binds([]runtime.Mount{
		{Source: "/a", Target: "/a", ReadOnly: true, Recursive: true, Options: []string{"noexec"}},
		{Source: "/b", Target: "/b", Propagation: "rslave"},
	})
	if want := []string{"rbind", "rprivate", "rro", "noexec"}; !slices.Equal(got[0].Options, want) {
		t.Errorf("got %q, want %q", got[0].Options, want)
	}
	for want, mounts := range map[string][]runtime.Mount{
		"": {{}}, "rslave": {{}, {Propagation: "rslave"}}, "rshared": {{Propagation: "rshared"}, {Propagation: "rslave"}},
	} {
		if got := spread(mounts); got != want {
			t.Errorf("%+v: got %q, want %q", mounts, got, want)
		}
	}
}
