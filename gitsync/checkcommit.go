package gitsync

import (
	"context"
	"fmt"
	"path"
	"path/filepath"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/shoal-dev/shoal/api"
)

// CheckCommit judges a folder of a commit in the repository at root, which has
// been cloned: what is checked out does not matter. folder is relative to root,
// revision is a hash, a branch, a tag, or what else `git rev-parse` takes. Nothing
// is written.
func CheckCommit(ctx context.Context, root, revision, folder string) (api.Snapshot, []api.Invalid, error) {
	repo, err := git.PlainOpenWithOptions(root, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check a commit: open the repository %s: %w", root, err)
	}
	hash, err := repo.ResolveRevision(plumbing.Revision(revision))
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check a commit: %q in %s: %w", revision, root, err)
	}
	store, ok := repo.Storer.(*filesystem.Storage)
	if !ok {
		return api.Snapshot{}, nil, fmt.Errorf("check a commit: %s is no repository on disk", root)
	}
	m := &mirror{store: store, trees: map[plumbing.Hash][]treeEntry{}}
	c, err := m.commit(*hash)
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check a commit: %w", err)
	}
	v, err := judge(ctx, &tree{root: c.TreeHash, objects: m}, "main", api.Commit(hash.String()), path.Clean(filepath.ToSlash(folder)))
	if err != nil {
		return api.Snapshot{}, nil, fmt.Errorf("check %s at %s: %w", folder, revision, err)
	}
	return v.snapshot, v.problems, nil
}
