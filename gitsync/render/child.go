package render

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resource"
	kustypes "sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// childName is the first argument (argv[0]) that makes this program a render child.
const childName = "shoal-render"

// Limits of the child. Kustomize takes about 60 MB and 4 s of CPU for 1,000 resources.
const (
	maxCPU    = 60        // seconds
	maxMemory = 1 << 30   // bytes of data; the garbage collector aims at half of it
	maxOutput = 256 << 20 // bytes
)

// reply is what the child writes to its standard output.
type reply struct {
	Objects []Object
	Error   string
}

// Main runs the child and ends the process if this process is one; otherwise
// it returns at once.
func Main() {
	if !IsChild() {
		return
	}
	if err := limit(); err != nil {
		fmt.Fprintln(os.Stderr, "set limits:", err)
		os.Exit(1)
	}
	var answer reply
	objects, err := build(os.Args[1], os.Stdin)
	if err != nil {
		answer.Error = err.Error()
	}
	answer.Objects = objects
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// IsChild reports whether this process was started by Build.
func IsChild() bool { return len(os.Args) == 2 && os.Args[0] == childName }

// limit binds the process itself: what it loads next was written by strangers.
func limit() error {
	debug.SetMemoryLimit(maxMemory / 2)
	// The daemon is protected from the kernel's OOM killer; this process is not.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0) // RLIMIT_FSIZE is not in force yet
	for resource, value := range map[int]uint64{
		unix.RLIMIT_CPU:   maxCPU,
		unix.RLIMIT_DATA:  maxMemory,
		unix.RLIMIT_FSIZE: 0, // no file can grow: there is nothing to write
		unix.RLIMIT_CORE:  0,
	} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
			return fmt.Errorf("resource %d to %d: %w", resource, value, err)
		}
	}
	return nil
}

// build builds the kustomization of a folder of the tree in a tar archive.
func build(dir string, archive io.Reader) ([]Object, error) {
	fs := filesys.MakeFsInMemory()
	if err := unpack(fs, archive); err != nil {
		return nil, fmt.Errorf("read the tree: %w", err)
	}
	root := path.Join("/", dir)
	keep, err := askForOrigins(fs, root)
	if err != nil {
		return nil, err
	}
	options := krusty.MakeDefaultOptions()
	// The file system holds the files of the plan and nothing else, so a
	// kustomization may share files with its neighbors, as with Flux.
	options.LoadRestrictions = kustypes.LoadRestrictionsNone
	resources, err := krusty.MakeKustomizer(options).Run(fs, root)
	if err != nil {
		return nil, err
	}
	objects := make([]Object, 0, resources.Size())
	for _, r := range resources.Resources() {
		object, err := objectOf(dir, r, keep)
		if err != nil {
			return nil, err
		}
		objects = append(objects, object)
	}
	return objects, nil
}

func unpack(fs filesys.FileSystem, archive io.Reader) error {
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := fs.WriteFile(path.Join("/", header.Name), data); err != nil {
			return err
		}
	}
}

// askForOrigins makes kustomize annotate every object with the file it comes
// from. It reports whether the author asked for that too.
func askForOrigins(fs filesys.FileSystem, root string) (asked bool, err error) {
	for _, name := range FileNames {
		file := path.Join(root, name)
		if !fs.Exists(file) {
			continue
		}
		data, err := fs.ReadFile(file)
		if err != nil {
			return false, err
		}
		var k map[string]any
		if err := yaml.Unmarshal(data, &k); err != nil {
			return false, fmt.Errorf("%s: %w", file, err)
		}
		list, _ := k["buildMetadata"].([]any)
		for _, entry := range list {
			asked = asked || entry == kustypes.OriginAnnotations
		}
		if asked {
			return true, nil
		}
		if k == nil {
			k = map[string]any{}
		}
		k["buildMetadata"] = append(list, kustypes.OriginAnnotations)
		if data, err = yaml.Marshal(k); err != nil {
			return false, err
		}
		return false, fs.WriteFile(file, data)
	}
	return false, fmt.Errorf("no kustomization in %s", root)
}

// objectOf takes the origin annotation off a resource, unless its author wants it.
func objectOf(dir string, r *resource.Resource, keep bool) (Object, error) {
	origin, err := r.GetOrigin()
	if err != nil {
		return Object{}, fmt.Errorf("%s: %w", r.CurId(), err)
	}
	var object Object
	switch {
	case origin == nil:
		object.Origin = dir
	case origin.Path != "":
		object.Origin = path.Join(dir, origin.Path)
	default:
		object.Origin, object.Generated = path.Join(dir, origin.ConfiguredIn), true
	}
	if !keep {
		if err := r.SetOrigin(nil); err != nil {
			return Object{}, fmt.Errorf("%s: %w", r.CurId(), err)
		}
	}
	data, err := r.MarshalJSON()
	if err != nil {
		return Object{}, fmt.Errorf("%s: %w", r.CurId(), err)
	}
	object.JSON = bytes.TrimSpace(data)
	object.Origin = strings.TrimPrefix(object.Origin, "/")
	return object, nil
}
