package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Spec describes an image of one layer.
type Spec struct {
	Files      map[string]File   // by absolute path
	Links      map[string]string // symbolic links, by absolute path
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

// Build builds an image for linux/amd64.
func Build(spec Spec) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		b, err := archive(spec)
		return io.NopCloser(bytes.NewReader(b)), err
	})
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", "amd64"
	file.Config = v1.Config{
		Entrypoint: spec.Entrypoint, Cmd: spec.Cmd, Env: spec.Env, User: spec.User,
		WorkingDir: spec.WorkingDir, StopSignal: spec.StopSignal, Labels: spec.Labels,
	}
	image, err = mutate.ConfigFile(image, file)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return image, nil
}

// archive returns the one layer of an image, the same bytes for the same files.
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
		if err := addFile(w, name, spec.Files[name]); err != nil {
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

func addFile(w *tar.Writer, name string, file File) error {
	data, mode := file.Data, file.Mode
	if file.From != "" {
		var err error
		if data, err = os.ReadFile(file.From); err != nil {
			return err
		}
		if info, err := os.Stat(file.From); err == nil && mode == 0 {
			mode = int64(info.Mode().Perm())
		}
	}
	if mode == 0 {
		mode = 0o644
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name[1:], Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// WriteArchive writes an image as a docker archive into a folder and returns
// its path. The file appears complete.
func WriteArchive(dir, ref string, image v1.Image) (string, error) {
	tag, err := name.NewTag(ref)
	if err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("write image: %w", err)
	}
	file := filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_").Replace(ref)+".tar")
	if err := tarball.WriteToFile(file+".part", tag, image); err != nil {
		return "", fmt.Errorf("write image %s: %w", ref, err)
	}
	if err := os.Rename(file+".part", file); err != nil {
		return "", fmt.Errorf("write image %s: %w", ref, err)
	}
	return file, nil
}

// users are the accounts of every image built here.
const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
	group  = "root:x:0:\nadm:x:4:\nwww-data:x:33:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n"
)

// Busybox describes an image with Debian's static busybox and all its applets
// in /bin, and users root, www-data (33), app (1000, also in group 2000) and
// nobody (65534).
func Busybox() Spec {
	spec := Spec{
		Files: map[string]File{
			"/bin/busybox": {From: "/bin/busybox", Mode: 0o755},
			"/etc/passwd":  {Data: []byte(passwd)},
			"/etc/group":   {Data: []byte(group)},
			"/tmp/.keep":   {},
		},
		Links: map[string]string{},
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
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

// AddProgram puts an installed program into an image, at its own path and with
// the shared libraries it needs.
func (s *Spec) AddProgram(program string) error {
	s.Files[program] = File{From: program, Mode: 0o755}
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "not a dynamic executable") {
			return nil
		}
		return fmt.Errorf("find the libraries of %s: %w: %s", program, err, out)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if !strings.HasPrefix(word, "/") || word == program+":" {
			continue
		}
		// Images have no merged /usr: a library goes where the program looks.
		s.Files[word] = File{From: word, Mode: 0o755}
	}
	return nil
}

// Redis describes an image with Debian's redis, which listens on all addresses
// without a password, as the images of that name do.
func Redis() (Spec, error) {
	s := Busybox()
	for _, program := range []string{"/usr/bin/redis-server", "/usr/bin/redis-cli"} {
		if err := s.AddProgram(program); err != nil {
			return s, err
		}
	}
	s.Files["/data/.keep"] = File{}
	s.WorkingDir = "/data"
	s.Entrypoint = []string{"/usr/bin/redis-server"}
	s.Cmd = []string{"--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""}
	return s, nil
}

// nginxConf serves /usr/share/nginx/html on port 80 and logs to the container's
// streams, as the image of that name does.
const nginxConf = `user www-data;
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr notice;
events { worker_connections 256; }
http {
  types { text/html html; text/css css; application/javascript js; text/plain txt; }
  access_log /dev/stdout;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  server { listen 80; root /usr/share/nginx/html; }
}
`

// Nginx describes an image with Debian's nginx.
func Nginx() (Spec, error) {
	s := Busybox()
	if err := s.AddProgram("/usr/sbin/nginx"); err != nil {
		return s, err
	}
	s.Files["/etc/nginx/nginx.conf"] = File{Data: []byte(nginxConf)}
	s.Files["/usr/share/nginx/html/index.html"] = File{Data: []byte("<h1>It works</h1>\n")}
	s.Files["/var/lib/nginx/.keep"], s.Files["/var/log/nginx/error.log"] = File{}, File{}
	s.Entrypoint = []string{"/usr/sbin/nginx"}
	s.Cmd = []string{"-g", "daemon off;"}
	s.StopSignal = "SIGQUIT"
	return s, nil
}

// Program describes an image with nothing but one static program.
func Program(file string, args ...string) Spec {
	return Spec{
		Files: map[string]File{
			"/" + filepath.Base(file): {From: file, Mode: 0o755},
			"/etc/passwd":             {Data: []byte(passwd)}, "/etc/group": {Data: []byte(group)}, "/tmp/.keep": {},
		},
		Entrypoint: append([]string{"/" + filepath.Base(file)}, args...),
		User:       "65534",
	}
}
