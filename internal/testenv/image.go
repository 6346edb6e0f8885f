package testenv

import (
	"archive/tar"
	"bytes"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Spec describes an image.
type Spec struct {
	Files      map[string]File // by absolute path
	Links      map[string]string
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
	StopSignal string
	Labels     map[string]string
}

// File is a file of an image: data, or a copy of a file of this machine.
type File struct {
	Data []byte
	From string
	Mode int64 // 0 means 0644, or that of From
}

// Busybox describes an image with Debian's static busybox, all its applets in
// /bin, and users root, nobody (65534) and app (1000, also in group 2000).
func Busybox() Spec {
	spec := Spec{
		Files: map[string]File{
			"/bin/busybox": {From: "/bin/busybox", Mode: 0o755},
			"/etc/passwd":  {Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")},
			"/etc/group":   {Data: []byte("root:x:0:\nnogroup:x:65534:\napp:x:1000:\nextra:x:2000:app\n")},
			"/tmp/.keep":   {},
		},
		Links: map[string]string{},
		Env:   []string{"PATH=/bin"},
		Cmd:   []string{"/bin/sh"},
	}
	out, err := exec.Command("/bin/busybox", "--list").Output()
	if err == nil {
		for applet := range strings.FieldsSeq(string(out)) {
			if applet != "busybox" {
				spec.Links["/bin/"+applet] = "busybox"
			}
		}
	}
	return spec
}

// Image builds an image.
func Image(t testing.TB, spec Spec) v1.Image {
	t.Helper()
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		b, err := archive(spec)
		return io.NopCloser(bytes.NewReader(b)), err
	})
	if err != nil {
		t.Fatalf("build image: %v", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatalf("build image: %v", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		t.Fatalf("build image: %v", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	file.Config = v1.Config{
		Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User,
		WorkingDir: spec.WorkingDir, StopSignal: spec.StopSignal, Labels: spec.Labels,
	}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		t.Fatalf("build image: %v", err)
	}
	return image
}

// archive returns the one layer of an image.
func archive(spec Spec) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	folders := map[string]bool{"/": true}
	for _, file := range slices.Concat(slices.Collect(maps.Keys(spec.Files)), slices.Collect(maps.Keys(spec.Links))) {
		for dir := path.Dir(file); !folders[dir]; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(folders)) {
		if dir == "/" {
			continue
		}
		mode := int64(0o755)
		if dir == "/tmp" {
			mode = 0o1777
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: mode}); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Files)) {
		file := spec.Files[name]
		data, mode := file.Data, file.Mode
		if file.From != "" {
			var err error
			if data, err = os.ReadFile(file.From); err != nil {
				return nil, err
			}
			if info, err := os.Stat(file.From); err == nil && mode == 0 {
				mode = int64(info.Mode().Perm())
			}
		}
		if mode == 0 {
			mode = 0o644
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Mode: mode, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Links)) {
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: name[1:], Linkname: spec.Links[name], Mode: 0o777}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), w.Close()
}

// Archive writes an image as a docker archive into a folder and returns its
// path. The file appears complete.
func Archive(t testing.TB, dir, ref string, image v1.Image) string {
	t.Helper()
	tag, err := name.NewTag(ref)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(ref)+".tar")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file+".part", tag, image); err != nil {
		t.Fatalf("write %s: %v", file, err)
	}
	if err := os.Rename(file+".part", file); err != nil {
		t.Fatal(err)
	}
	return file
}

// Registry serves a registry on loopback and returns its host and port.
func Registry(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(nolog)))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// Push pushes an image to a registry as path:tag.
func Push(t testing.TB, host, ref string, image v1.Image) {
	t.Helper()
	tag, err := name.NewTag(host+"/"+ref, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
}

// Mirrors returns a folder of hosts.toml files that send every pull from the
// given registries to the one at host.
func Mirrors(t testing.TB, host string, registries ...string) string {
	t.Helper()
	dir := Dir(t)
	for _, r := range registries {
		text := "server = \"https://" + r + "\"\n[host.\"http://" + host + "\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
		file := filepath.Join(dir, strings.ReplaceAll(r, ":", "_")+"", "hosts.toml")
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
