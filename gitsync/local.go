package gitsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"github.com/shoal-dev/shoal/gitsync/manifest"
)

// localSource reads a repository of this machine, without the git program and
// without writing: what the mirror lacks is copied object by object.
type localSource struct{ target }

func (s *localSource) fetch(_ context.Context, m *mirror) (plumbing.Hash, error) {
	repository, err := s.open()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	tip, err := s.tip(repository)
	if err != nil || m.has(tip) {
		return tip, err
	}
	m.fetches++
	return tip, m.copyCommit(repository.Storer, tip)
}

// open opens the repository as it is now: packs come and go.
func (s *localSource) open() (*git.Repository, error) {
	dirs, err := gitDirs(s.local)
	if err != nil {
		return nil, err
	}
	fs := dotgit.NewRepositoryFilesystem(osfs.New(dirs.own), osfs.New(dirs.common))
	store := filesystem.NewStorageWithOptions(fs, cache.NewObjectLRU(cacheSize),
		filesystem.Options{AlternatesFS: osfs.New("/"), LargeObjectThreshold: manifest.MaxFile})
	return git.Open(store, nil)
}

// tip resolves the reference that is followed to a commit.
func (s *localSource) tip(repository *git.Repository) (plumbing.Hash, error) {
	names := candidates(s.Ref)
	if s.Ref == "" {
		names = []string{"HEAD"}
	}
	for _, name := range names {
		reference, err := repository.Reference(plumbing.ReferenceName(name), true)
		switch {
		case err == nil:
			return peel(repository, reference.Hash())
		case !errors.Is(err, plumbing.ErrReferenceNotFound):
			return plumbing.ZeroHash, fmt.Errorf("read %s: %w", name, err)
		}
	}
	references, err := repository.References()
	if err != nil {
		return plumbing.ZeroHash, fmt.Errorf("list the branches: %w", err)
	}
	var known []string
	err = references.ForEach(func(r *plumbing.Reference) error {
		known = append(known, r.Name().String())
		return nil
	})
	return plumbing.ZeroHash, errors.Join(err, noRef(s.Ref, known))
}

// peel follows annotated tags to a commit.
func peel(repository *git.Repository, hash plumbing.Hash) (plumbing.Hash, error) {
	for range 5 {
		tag, err := object.GetTag(repository.Storer, hash)
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			return hash, nil
		}
		if err != nil {
			return plumbing.ZeroHash, fmt.Errorf("tag %s: %w", hash, err)
		}
		hash = tag.Target
	}
	return plumbing.ZeroHash, fmt.Errorf("tag %s leads nowhere", hash)
}

// dirs are the folders of a local repository. They differ in a linked work tree.
type dirs struct{ own, common string }

// gitDirs finds the folders of the repository at a path: bare, with a .git
// folder, or with a .git file that points elsewhere.
func gitDirs(path string) (dirs, error) {
	own := filepath.Join(path, ".git")
	info, err := os.Stat(own)
	switch {
	case errors.Is(err, os.ErrNotExist):
		own = path
		if _, err := os.Stat(filepath.Join(path, "HEAD")); err != nil {
			if _, err := os.Stat(path); err != nil {
				return dirs{}, fmt.Errorf("there is no repository: %w", err)
			}
			return dirs{}, fmt.Errorf("%s is not a Git repository; make it one with git init", path)
		}
	case err != nil:
		return dirs{}, fmt.Errorf("open the repository: %w", err)
	case !info.IsDir():
		target, err := pointer(own, "gitdir: ")
		if err != nil {
			return dirs{}, err
		}
		own = target
	}
	common, err := pointer(filepath.Join(own, "commondir"), "")
	if errors.Is(err, os.ErrNotExist) {
		return dirs{own, own}, nil
	}
	return dirs{own, common}, err
}

// pointer reads a file that holds the path of a folder, relative to its own.
func pointer(file, prefix string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("open the repository: %w", err)
	}
	target, ok := strings.CutPrefix(strings.TrimSpace(string(data)), prefix)
	if !ok || target == "" {
		return "", fmt.Errorf("open the repository: %s does not name a folder", file)
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(file), target)
	}
	return filepath.Clean(target), nil
}
