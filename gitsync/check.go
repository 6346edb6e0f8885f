package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/manifest"
)

// Check judges the folder dir of the file system the way a commit with the
// same content would be judged with dir as its sync path. root is the top of
// the repository, which kustomizations may refer to; files are named relative
// to it. Neither has to be in Git.
//
// The snapshot is that of the good objects; it is for show.
func Check(ctx context.Context, root, dir string) (api.Snapshot, []api.Invalid, error) {
	relative, err := filepath.Rel(root, dir)
	if err != nil || relative == ".." || strings.HasPrefix(relative, "../") {
		return api.Snapshot{}, nil, fmt.Errorf("check %s: it is not inside of %s", dir, root)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check: %w", err)
	}
	if !info.IsDir() {
		return checkFile(root, filepath.ToSlash(relative))
	}
	v, err := judge(ctx, &folder{root: root}, "main", "", filepath.ToSlash(relative))
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check %s: %w", dir, err)
	}
	return v.snapshot, v.problems, nil
}

func checkFile(root, name string) (api.Snapshot, []api.Invalid, error) {
	data, err := (&folder{root: root}).Read(name)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check: %w", err)
	}
	d := manifest.Decode(manifest.File{Path: name, Data: data})
	snapshot, problems := manifest.Assemble("main", "", []manifest.Decoded{d})
	return snapshot, problems, nil
}

// Root returns the top of the repository that holds a folder or a file: the
// nearest folder upwards with a .git in it. When there is none it is the folder
// itself, or the one the file is in.
func Root(name string) string {
	dir := name
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		dir = filepath.Dir(name)
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			return at
		}
		if at == filepath.Dir(at) {
			return dir
		}
	}
}

// folder is a folder of the file system as a forest.
type folder struct {
	root string
	err  error
}

func (f *folder) broken() error { return f.err }

func (f *folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

// Hash implements render.Tree: any text will do, nothing is remembered.
func (f *folder) Hash(name string) string {
	if strings.HasPrefix(name, "..") {
		return ""
	}
	if info, err := os.Lstat(f.path(name)); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return "file"
}

// Read implements render.Tree.
func (f *folder) Read(name string) (data []byte, err error) {
	opened, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	info, err := opened.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > manifest.MaxFile {
		return nil, &sizeError{info.Size(), manifest.MaxFile}
	}
	return io.ReadAll(io.LimitReader(opened, manifest.MaxFile+1))
}

// Under implements render.Tree.
func (f *folder) Under(dir string) []string {
	files, _, _, err := f.list(dir)
	if err != nil && f.err == nil {
		f.err = err
	}
	out := make([]string, len(files))
	for i, file := range files {
		out[i] = file.path
	}
	return out
}

func (f *folder) list(dir string) (files []file, problems []api.Invalid, found bool, err error) {
	if info, err := os.Stat(f.path(dir)); err != nil || !info.IsDir() {
		return nil, nil, false, nil
	}
	err = filepath.WalkDir(f.path(dir), func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(f.root, at)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(relative)
		hidden := strings.HasPrefix(entry.Name(), ".") && name != dir
		switch {
		case hidden && entry.IsDir():
			return fs.SkipDir
		case hidden, entry.IsDir():
		case entry.Type().IsRegular():
			files = append(files, file{path: name, hash: "file"})
		default:
			problems = append(problems, api.Invalid{File: name, Reason: "is a symbolic link; links are not followed: commit the file itself"})
		}
		if len(files) > MaxEntries {
			return fmt.Errorf("more than %d files", MaxEntries)
		}
		return nil
	})
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, problems, true, err
}
