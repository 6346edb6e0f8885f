package gitsync

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"sort"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/shoal-dev/shoal/api"
)

// Modes of tree entries that Git writes, and two that old versions wrote.
const (
	modeFile       = 0o100644
	modeGroupWrite = 0o100664
	modeExecutable = 0o100755
	modeSymlink    = 0o120000
	modeFolder     = 0o040000
	modeSubmodule  = 0o160000
)

// treeEntry is one line of a tree object.
type treeEntry struct {
	name string
	mode uint32
	hash plumbing.Hash
}

// parseTree reads a tree object strictly: what git itself would not write is
// an error, not an entry.
func parseTree(data []byte) ([]treeEntry, error) {
	var entries []treeEntry
	previous := ""
	for len(data) > 0 {
		modeText, rest, ok1 := bytes.Cut(data, []byte(" "))
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok1 || !ok2 || len(rest) < len(plumbing.Hash{}) || len(modeText) > 6 {
			return nil, errors.New("the tree object is cut short")
		}
		mode, err := strconv.ParseUint(string(modeText), 8, 32)
		if err != nil {
			return nil, fmt.Errorf("mode %q is not a number", modeText)
		}
		e := treeEntry{name: string(name), mode: uint32(mode)}
		copy(e.hash[:], rest)
		data = rest[len(e.hash):]
		if err := e.check(); err != nil {
			return nil, err
		}
		order := e.name
		if e.mode == modeFolder {
			order += "/" // Git sorts folders as if their names ended so
		}
		if previous != "" && order <= previous {
			return nil, fmt.Errorf("entry %q is not in order", e.name)
		}
		previous = order
		entries = append(entries, e)
	}
	return entries, nil
}

func (e treeEntry) check() error {
	switch e.mode {
	case modeFile, modeGroupWrite, modeExecutable, modeSymlink, modeFolder, modeSubmodule:
	default:
		return fmt.Errorf("entry %q has mode %o, which Git does not know", e.name, e.mode)
	}
	if e.name == "" || e.name == "." || e.name == ".." || strings.EqualFold(e.name, ".git") || strings.ContainsAny(e.name, "/\\\x00") {
		return fmt.Errorf("an entry has the forbidden name %q", e.name)
	}
	return nil
}

// tree is the files of one commit as render.Tree. Folders are read when they
// are asked for and kept by hash.
type tree struct {
	root    plumbing.Hash
	objects objects
	err     error // the first thing that could not be read; look at it after use
}

// objects reads from the mirror.
type objects interface {
	tree(hash plumbing.Hash) ([]treeEntry, error)
	blob(hash plumbing.Hash) ([]byte, error)
}

// lookup returns the entry of a path.
func (t *tree) lookup(file string) (treeEntry, bool) {
	current := treeEntry{mode: modeFolder, hash: t.root}
	if file == "." {
		return current, true
	}
	for name := range strings.SplitSeq(file, "/") {
		if current.mode != modeFolder {
			return treeEntry{}, false
		}
		entries, err := t.objects.tree(current.hash)
		if err != nil {
			t.fail(err)
			return treeEntry{}, false
		}
		found := false
		for _, e := range entries {
			if e.name == name {
				current, found = e, true
				break
			}
		}
		if !found {
			return treeEntry{}, false
		}
	}
	return current, true
}

func (t *tree) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (e treeEntry) isFile() bool {
	return e.mode == modeFile || e.mode == modeGroupWrite || e.mode == modeExecutable
}

// Hash implements render.Tree.
func (t *tree) Hash(file string) string {
	e, found := t.lookup(file)
	if !found || !e.isFile() {
		return ""
	}
	return e.hash.String()
}

// Read implements render.Tree.
func (t *tree) Read(file string) ([]byte, error) {
	e, found := t.lookup(file)
	if !found || !e.isFile() {
		return nil, fmt.Errorf("there is no file %s", file)
	}
	return t.objects.blob(e.hash)
}

// Under implements render.Tree.
func (t *tree) Under(folder string) []string {
	files, _, err := t.walk(folder)
	if err != nil {
		t.fail(err)
	}
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.path
	}
	return out
}

// file is a regular file of a commit.
type file struct {
	path string
	hash string
}

// walk lists the files below a folder, sorted by path, and as problems all
// that is neither file nor folder. Hidden ones are left out.
func (t *tree) walk(folder string) (files []file, problems []api.Invalid, err error) {
	e, found := t.lookup(folder)
	if !found || e.mode != modeFolder {
		return nil, nil, t.err
	}
	w := walker{objects: t.objects, left: MaxEntries}
	err = w.folder(folder, e.hash, 0)
	sort.Slice(w.files, func(i, j int) bool { return w.files[i].path < w.files[j].path })
	return w.files, w.problems, err
}

type walker struct {
	objects  objects
	files    []file
	problems []api.Invalid
	left     int
}

func (w *walker) folder(dir string, hash plumbing.Hash, depth int) error {
	if depth > MaxDepth {
		return refuse("folders are nested more than %d deep at %s", MaxDepth, dir)
	}
	entries, err := w.objects.tree(hash)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if w.left -= len(entries); w.left < 0 {
		return refuse("there are more than %d files and folders", MaxEntries)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.name, ".") {
			continue
		}
		name := path.Join(dir, e.name)
		switch {
		case e.isFile():
			w.files = append(w.files, file{path: name, hash: e.hash.String()})
		case e.mode == modeFolder:
			if err := w.folder(name, e.hash, depth+1); err != nil {
				return err
			}
		case e.mode == modeSymlink:
			w.problems = append(w.problems, api.Invalid{File: name, Reason: "is a symbolic link; links are not followed: commit the file itself"})
		default:
			w.problems = append(w.problems, api.Invalid{File: name, Reason: "is a submodule; submodules are not read: commit the files themselves"})
		}
	}
	return nil
}
