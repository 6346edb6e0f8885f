package containerd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// Kubernetes' table of command and args.
func TestArguments(t *testing.T) {
	own := &image{config: ocispec.ImageConfig{Entrypoint: []string{"/ep"}, Cmd: []string{"a", "b"}}}
	for _, c := range []struct{ command, args, want []string }{
		{nil, nil, []string{"/ep", "a", "b"}},
		{[]string{"/c"}, nil, []string{"/c"}},
		{nil, []string{"x"}, []string{"/ep", "x"}},
		{[]string{"/c"}, []string{"x"}, []string{"/c", "x"}},
	} {
		got, err := arguments(runtime.ContainerSpec{Command: c.command, Args: c.args}, own)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("command %q, args %q: got %q, %v; want %q", c.command, c.args, got, err, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	own := &image{config: ocispec.ImageConfig{Env: []string{"PATH=/bin", "A=image", "broken"}}}
	got := environment(runtime.ContainerSpec{Hostname: "box", Env: []string{"A=own", "B="}}, own)
	if want := []string{"PATH=/bin", "HOSTNAME=box", "A=own", "B="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUser(t *testing.T) {
	lower, upper := t.TempDir(), t.TempDir()
	write := func(dir, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(lower, "etc/passwd", "root:x:0:0::/root:/bin/sh\nredis:x:999:1000::/:/bin/sh\n")
	write(lower, "etc/group", "root:x:0:\nredis:x:1000:\ndisk:x:6:root,redis\n")
	rootfs := []mount.Mount{{Type: "overlay", Options: []string{"index=off", "workdir=/w", "upperdir=" + upper, "lowerdir=" + lower}}}
	number := func(n int64) *int64 { return &n }
	for _, c := range []struct {
		name     string
		security runtime.Security
		image    string
		want     specs.User
		err      string
	}{
		{name: "root by default", want: specs.User{AdditionalGids: []uint32{0, 6}}},
		{name: "a name", image: "redis", want: specs.User{UID: 999, GID: 1000, AdditionalGids: []uint32{6, 1000}}},
		{name: "a name and a group", image: "redis:disk", want: specs.User{UID: 999, GID: 6, AdditionalGids: []uint32{6}}},
		{name: "a number", image: "4242", want: specs.User{UID: 4242, AdditionalGids: []uint32{0}}},
		{name: "numbers", image: "4242:17", want: specs.User{UID: 4242, GID: 17, AdditionalGids: []uint32{17}}},
		{
			name: "the pod's word over the image's", security: runtime.Security{User: number(999), Groups: []int64{2000}}, image: "root",
			want: specs.User{UID: 999, GID: 1000, AdditionalGids: []uint32{6, 1000, 2000}},
		},
		{name: "the pod's group", security: runtime.Security{User: number(5), Group: number(50)}, want: specs.User{UID: 5, GID: 50, AdditionalGids: []uint32{50}}},
		{name: "an unknown name", image: "nobody", err: `the image has no user "nobody"`},
		{name: "root where that is forbidden", security: runtime.Security{NonRoot: true}, err: "will run as root"},
		{name: "a name where a number is needed", security: runtime.Security{NonRoot: true}, image: "redis", err: "non-numeric user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := user(c.security, c.image, rootfs)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got.UID != c.want.UID || got.GID != c.want.GID || !slices.Equal(got.AdditionalGids, c.want.AdditionalGids) {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// A layer of an image leads nowhere but into itself.
func TestReadIn(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("host"), 0o644); err != nil {
		t.Fatal(err)
	}
	lower, upper := t.TempDir(), t.TempDir()
	for _, dir := range []string{lower, upper} {
		if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(secret, filepath.Join(upper, "etc", "passwd")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "etc", "passwd"), []byte("below"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(upper, "etc", "group"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(lower, "etc", "shadow"), make([]byte, maxUsers+10), 0o644); err != nil {
		t.Fatal(err)
	}
	rootfs := []mount.Mount{{Type: "overlay", Options: []string{"upperdir=" + upper, "lowerdir=" + lower}}}
	for name, want := range map[string]int{"etc/passwd": 0, "etc/group": 0, "etc/shadow": maxUsers, "etc/none": 0} {
		got, err := readIn(rootfs, name)
		if err != nil || len(got) != want {
			t.Errorf("%s: got %d bytes, %v; want %d", name, len(got), err, want)
		}
	}
	// A whiteout hides what lies below.
	if err := os.Remove(filepath.Join(upper, "etc", "passwd")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mknod(filepath.Join(upper, "etc", "passwd"), unix.S_IFCHR, 0); err != nil {
		t.Fatal(err)
	}
	if got, err := readIn(rootfs, "etc/passwd"); err != nil || len(got) != 0 {
		t.Errorf("whiteout: got %q, %v", got, err)
	}
}

// Readings of both cgroup versions, as they were found on machines.
func TestOOMKills(t *testing.T) {
	for text, want := range map[string]int{
		"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n":                2,
		"low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n": 1,
		"oom_kill_disable 0\nunder_oom 0\n":                            0,
		"":                                                             0,
	} {
		if got := oomKills(text); got != want {
			t.Errorf("%q: got %d, want %d", text, got, want)
		}
	}
}

func TestBindsAreOrdered(t *testing.T) {
	got := binds([]runtime.Mount{{Source: "/b", Target: "/data/inner/", ReadOnly: true}, {Source: "/a", Target: "/data"}})
	if got[0].Destination != "/data" || got[1].Destination != "/data/inner" || !slices.Contains(got[1].Options, "ro") {
		t.Errorf("got %+v", got)
	}
}

func TestNormalize(t *testing.T) {
	for ref, want := range map[string]string{
		"redis":                     "docker.io/library/redis:latest",
		"redis:7":                   "docker.io/library/redis:7",
		"team/app":                  "docker.io/team/app:latest",
		"localhost:5000/app":        "localhost:5000/app:latest",
		"registry.k8s.io/pause:3.9": "registry.k8s.io/pause:3.9",
	} {
		if got, err := Normalize(ref); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", ref, got, err, want)
		}
	}
	if _, err := Normalize("UPPER"); err == nil {
		t.Error("UPPER was accepted")
	}
}

func TestSameRegistry(t *testing.T) {
	for _, c := range []struct {
		secret, host string
		want         bool
	}{
		{"https://index.docker.io/v1/", "registry-1.docker.io", true},
		{"docker.io", "registry-1.docker.io", true},
		{"ghcr.io", "ghcr.io", true},
		{"https://ghcr.io/v2/", "ghcr.io", true},
		{"ghcr.io", "quay.io", false},
	} {
		if got := sameRegistry(c.secret, c.host); got != c.want {
			t.Errorf("%s, %s: got %t", c.secret, c.host, got)
		}
	}
}
