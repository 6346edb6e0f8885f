package volume

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The names that kubelet uses within such volumes.
const (
	dataLink = "..data"
	newLink  = "..data_tmp"
)

// write makes a volume's folder hold exactly want, in one step for its readers.
// It reports whether anything changed. The folder may be written to by
// containers, so nothing is followed out of it.
func write(dir string, want payload, group *int64) (changed bool, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, err
	}
	defer root.Close()
	old, _ := root.Readlink(dataLink)
	if old != "" && same(root, old, want) {
		return false, link(root, want)
	}
	fresh := ".." + time.Now().UTC().Format("2006_01_02_15_04_05.000000000")
	if err := root.Mkdir(fresh, 0o755); err != nil {
		return false, err
	}
	if err := fill(root, fresh, want, group); err != nil {
		_ = root.RemoveAll(fresh)
		return false, err
	}
	_ = root.Remove(newLink)
	if err := root.Symlink(fresh, newLink); err != nil {
		return false, err
	}
	if err := root.Rename(newLink, dataLink); err != nil {
		return false, err
	}
	if err := link(root, want); err != nil {
		return false, err
	}
	return true, sweep(root, fresh, want)
}

// same reports whether a data folder already holds what is wanted.
func same(root *os.Root, data string, want payload) bool {
	seen := 0
	err := fs.WalkDir(root.FS(), data, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		f, found := want[strings.TrimPrefix(name, data+"/")]
		if !found {
			return fs.ErrExist
		}
		opened, err := root.Open(name)
		if err != nil {
			return err
		}
		defer opened.Close() //nolint:errcheck // only a handle
		info, err := opened.Stat()
		if err != nil {
			return err
		}
		have, err := io.ReadAll(opened)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, f.data) || info.Mode().Perm()&0o707 != os.FileMode(f.mode).Perm()&0o707 {
			return fs.ErrExist
		}
		seen++
		return nil
	})
	return err == nil && seen == len(want)
}

// fill writes the files of a new data folder.
func fill(root *os.Root, dir string, want payload, group *int64) error {
	for _, name := range sorted(want) {
		f := want[name]
		full := path.Join(dir, name)
		if parent := path.Dir(full); parent != dir {
			if err := root.MkdirAll(parent, 0o755); err != nil {
				return err
			}
		}
		mode := os.FileMode(f.mode).Perm()
		if group != nil { // the group must be able to read, as kubelet sees to it
			mode |= 0o440
		}
		if err := root.WriteFile(full, f.data, mode); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		if err := root.Chmod(full, mode); err != nil { // whatever the umask said
			return err
		}
		if group != nil {
			if err := root.Lchown(full, -1, int(*group)); err != nil {
				return err
			}
		}
	}
	return nil
}

// link makes the names that users see: links into the data folder.
func link(root *os.Root, want payload) error {
	for _, name := range tops(want) {
		target := path.Join(dataLink, name)
		if have, err := root.Readlink(name); err == nil && have == target {
			continue
		}
		if err := root.RemoveAll(name); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

// sweep removes links and data folders that are not in use any more.
func sweep(root *os.Root, current string, want payload) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	keep := tops(want)
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if name == dataLink || name == current || slices.Contains(keep, name) {
			continue
		}
		errs = append(errs, root.RemoveAll(name))
	}
	return errors.Join(errs...)
}

func tops(want payload) []string {
	var out []string
	for _, name := range sorted(want) {
		top, _, _ := strings.Cut(filepath.ToSlash(name), "/")
		if !slices.Contains(out, top) {
			out = append(out, top)
		}
	}
	return out
}

func sorted(want payload) []string {
	out := make([]string, 0, len(want))
	for name := range want {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}
