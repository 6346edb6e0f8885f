package testenv

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/shoal-dev/shoal/internal/images"
)

// Spec describes an image.
type Spec = images.Spec

// File is a file of an image.
type File = images.File

// Busybox describes an image with Debian's static busybox, see
// [images.Busybox].
func Busybox() Spec { return images.Busybox() }

// Image builds an image.
func Image(t testing.TB, spec Spec) v1.Image {
	t.Helper()
	image, err := images.Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// Archive writes an image as a docker archive into a folder and returns its
// path. The file appears complete.
func Archive(t testing.TB, dir, ref string, image v1.Image) string {
	t.Helper()
	file, err := images.WriteArchive(dir, ref, image)
	if err != nil {
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
