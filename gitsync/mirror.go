package gitsync

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/manifest"
)

// References of the mirror. Everything they reach is kept, all else may go.
const (
	acceptedRef plumbing.ReferenceName = "refs/shoal/accepted"
	tipRef      plumbing.ReferenceName = "refs/shoal/tip"
	keepPrefix                         = "refs/shoal/keep/"
)

const (
	maxPacks  = 100     // then the mirror is written anew
	looseMax  = 64      // objects of one commit that are stored one by one
	packBatch = 5_000   // objects of a pack that is made here
	cacheSize = 4 << 20 // bytes of objects held in memory
)

// mirror is a bare, shallow repository with the commits that this node needs.
// It may be used by one goroutine at a time.
type mirror struct {
	dir     string
	store   *filesystem.Storage
	trees   map[plumbing.Hash][]treeEntry
	fetches int // since the mirror was written anew, as far as this process knows
}

// openMirror opens the mirror in dir, making an empty one if there is none. It
// ends a swap that a crash interrupted.
func openMirror(dir string) (*mirror, error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(dir+".old", dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("restore the mirror: %w", err)
		}
	}
	for _, rest := range []string{dir + ".old", dir + ".new"} {
		if err := os.RemoveAll(rest); err != nil {
			return nil, fmt.Errorf("open the mirror: %w", err)
		}
	}
	return createMirror(dir)
}

func createMirror(dir string) (*mirror, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the mirror: %w", err)
	}
	store := filesystem.NewStorageWithOptions(osfs.New(dir), cache.NewObjectLRU(cacheSize),
		filesystem.Options{ExclusiveAccess: false, LargeObjectThreshold: manifest.MaxFile})
	if _, err := git.Init(store, nil); err != nil && !errors.Is(err, git.ErrRepositoryAlreadyExists) {
		return nil, fmt.Errorf("open the mirror: %w", err)
	}
	return &mirror{dir: dir, store: store, trees: map[plumbing.Hash][]treeEntry{}}, nil
}

// ref returns what a reference points at, the zero hash when there is none.
func (m *mirror) ref(name plumbing.ReferenceName) plumbing.Hash {
	reference, err := m.store.Reference(name)
	if err != nil {
		return plumbing.ZeroHash
	}
	return reference.Hash()
}

func (m *mirror) setRef(name plumbing.ReferenceName, hash plumbing.Hash) error {
	if m.ref(name) == hash {
		return nil
	}
	if err := m.store.SetReference(plumbing.NewHashReference(name, hash)); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// keep makes the references under keepPrefix exactly those for commits.
func (m *mirror) keep(commits []api.Commit) error {
	want := map[plumbing.ReferenceName]plumbing.Hash{}
	for _, c := range commits {
		hash := plumbing.NewHash(string(c))
		if m.has(hash) {
			want[plumbing.ReferenceName(keepPrefix+string(c))] = hash
		}
	}
	for _, name := range m.kept() {
		if _, stays := want[name]; !stays {
			if err := m.store.RemoveReference(name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
		}
	}
	for name, hash := range want {
		if err := m.setRef(name, hash); err != nil {
			return err
		}
	}
	return nil
}

func (m *mirror) kept() (names []plumbing.ReferenceName) {
	references, err := m.store.IterReferences()
	if err != nil {
		return nil
	}
	_ = references.ForEach(func(r *plumbing.Reference) error {
		if strings.HasPrefix(r.Name().String(), keepPrefix) {
			names = append(names, r.Name())
		}
		return nil
	})
	return names
}

// pinned lists every commit that a reference holds.
func (m *mirror) pinned() (hashes []plumbing.Hash) {
	for _, name := range append(m.kept(), acceptedRef, tipRef) {
		if hash := m.ref(name); !hash.IsZero() {
			hashes = append(hashes, hash)
		}
	}
	return hashes
}

// has reports whether an object is in the mirror. Objects arrive in packs that
// hold all they refer to, so a commit that is there can be read.
func (m *mirror) has(hash plumbing.Hash) bool {
	return m.store.HasEncodedObject(hash) == nil
}

// commit reads a commit.
func (m *mirror) commit(hash plumbing.Hash) (*object.Commit, error) {
	c, err := object.GetCommit(m.store, hash)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", api.Commit(hash.String()).Short(), err)
	}
	return c, nil
}

// tree implements objects.
func (m *mirror) tree(hash plumbing.Hash) ([]treeEntry, error) {
	if entries, known := m.trees[hash]; known {
		return entries, nil
	}
	entries, err := readTree(m.store, hash)
	if err != nil {
		return nil, err
	}
	if len(m.trees) > 50_000 {
		clear(m.trees)
	}
	m.trees[hash] = entries
	return entries, nil
}

// blob implements objects.
func (m *mirror) blob(hash plumbing.Hash) ([]byte, error) {
	return readObject(m.store, plumbing.BlobObject, hash, manifest.MaxFile)
}

func readTree(store storer.EncodedObjectStorer, hash plumbing.Hash) ([]treeEntry, error) {
	data, err := readObject(store, plumbing.TreeObject, hash, MaxTree)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, fmt.Errorf("tree %s: %w", hash, err)
	}
	return entries, nil
}

// sizeError says that an object is larger than it may be.
type sizeError struct{ size, limit int64 }

func (e *sizeError) Error() string {
	return fmt.Sprintf("has %d bytes; %d are read at most", e.size, e.limit)
}

// TooLarge tells package render to build without the file.
func (e *sizeError) TooLarge() bool { return true }

func readObject(store storer.EncodedObjectStorer, t plumbing.ObjectType, hash plumbing.Hash, limit int64) (data []byte, err error) {
	size, err := sizeOf(store, hash)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t, hash, err)
	}
	if size > limit {
		return nil, &sizeError{size, limit}
	}
	encoded, err := store.EncodedObject(t, hash)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t, hash, err)
	}
	r, err := encoded.Reader()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t, hash, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data = make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%s %s: %w", t, hash, err)
	}
	return data, nil
}

// sizeOf returns the size of an object. go-git does not look for sizes in
// alternates.
func sizeOf(store storer.EncodedObjectStorer, hash plumbing.Hash) (int64, error) {
	size, err := store.EncodedObjectSize(hash)
	if !errors.Is(err, plumbing.ErrObjectNotFound) {
		return size, err
	}
	encoded, err := store.EncodedObject(plumbing.AnyObject, hash)
	if err != nil {
		return 0, err
	}
	return encoded.Size(), nil
}

// copyCommit brings a commit and its tree, without history, from another store.
func (m *mirror) copyCommit(from storer.EncodedObjectStorer, hash plumbing.Hash) error {
	if m.has(hash) {
		return nil
	}
	commit, err := object.GetCommit(from, hash)
	if err != nil {
		return fmt.Errorf("commit %s: %w", hash, err)
	}
	c := collector{from: from, has: m.has, seen: map[plumbing.Hash]bool{}}
	if err := c.tree(commit.TreeHash, 0); err != nil {
		return err
	}
	if err := m.add(from, append(c.found, hash)); err != nil {
		return fmt.Errorf("copy commit %s: %w", hash, err)
	}
	return m.addShallow(hash)
}

// addShallow tells the mirror that the parents of a commit are not there.
func (m *mirror) addShallow(hashes ...plumbing.Hash) error {
	old, err := m.store.Shallow()
	if err != nil {
		return fmt.Errorf("read the shallow commits: %w", err)
	}
	known := map[plumbing.Hash]bool{}
	for _, h := range old {
		known[h] = true
	}
	for _, h := range hashes {
		if !known[h] {
			old = append(old, h)
		}
	}
	return m.store.SetShallow(old)
}

// add copies objects, each after those it refers to.
func (m *mirror) add(from storer.EncodedObjectStorer, hashes []plumbing.Hash) error {
	if len(hashes) <= looseMax {
		for _, hash := range hashes {
			o, err := from.EncodedObject(plumbing.AnyObject, hash)
			if err != nil {
				return err
			}
			if _, err := m.store.SetEncodedObject(o); err != nil {
				return err
			}
		}
		return nil
	}
	for len(hashes) > 0 {
		batch := hashes[:min(packBatch, len(hashes))]
		hashes = hashes[len(batch):]
		w, err := m.store.PackfileWriter()
		if err != nil {
			return err
		}
		_, err = packfile.NewEncoder(w, from, false).Encode(batch, 0)
		if err := errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return nil
}

// collector lists what a tree needs and the mirror lacks, leaves first.
type collector struct {
	from  storer.EncodedObjectStorer
	has   func(plumbing.Hash) bool
	seen  map[plumbing.Hash]bool
	found []plumbing.Hash
	size  int64
}

func (c *collector) tree(hash plumbing.Hash, depth int) error {
	if c.seen[hash] || c.has(hash) {
		return nil
	}
	c.seen[hash] = true
	if depth > MaxDepth {
		return fmt.Errorf("folders are nested more than %d deep", MaxDepth)
	}
	entries, err := readTree(c.from, hash)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.mode {
		case modeSubmodule:
		case modeFolder:
			if err := c.tree(e.hash, depth+1); err != nil {
				return err
			}
		default:
			if err := c.blob(e.hash); err != nil {
				return err
			}
		}
	}
	c.found = append(c.found, hash)
	if len(c.found) > 2*MaxEntries {
		return fmt.Errorf("the commit holds more than %d objects", 2*MaxEntries)
	}
	return nil
}

func (c *collector) blob(hash plumbing.Hash) error {
	if c.seen[hash] || c.has(hash) {
		return nil
	}
	c.seen[hash] = true
	size, err := sizeOf(c.from, hash)
	if err != nil {
		return fmt.Errorf("blob %s: %w", hash, err)
	}
	if c.size += size; c.size > MaxPack {
		return fmt.Errorf("the commit holds more than %d MiB", MaxPack>>20)
	}
	c.found = append(c.found, hash)
	return nil
}

// crowded reports whether the mirror has collected so much that it should be
// written anew.
func (m *mirror) crowded() bool {
	packs, err := m.store.ObjectPacks()
	return err == nil && len(packs) > maxPacks || m.fetches > 10*maxPacks
}

// renew writes a new mirror with nothing but the pinned commits and swaps it
// in. The old one stays as it is when that is not possible.
func (m *mirror) renew() (*mirror, error) {
	fresh, err := createMirror(m.dir + ".new")
	if err != nil {
		return m, err
	}
	for _, hash := range m.pinned() {
		if err := fresh.copyCommit(m.store, hash); err != nil {
			return m, errors.Join(err, os.RemoveAll(fresh.dir))
		}
	}
	for _, name := range append(m.kept(), acceptedRef, tipRef) {
		if hash := m.ref(name); !hash.IsZero() {
			if err := fresh.setRef(name, hash); err != nil {
				return m, errors.Join(err, os.RemoveAll(fresh.dir))
			}
		}
	}
	return m.swap(fresh.dir)
}

// swap replaces the mirror by the one in dir.
func (m *mirror) swap(dir string) (*mirror, error) {
	if err := errors.Join(os.Rename(m.dir, m.dir+".old"), os.Rename(dir, m.dir)); err != nil {
		return m, fmt.Errorf("swap the mirror: %w", err)
	}
	return openMirror(m.dir)
}

// discard throws a damaged mirror away and starts an empty one.
func (m *mirror) discard() (*mirror, error) {
	if err := os.RemoveAll(m.dir); err != nil {
		return m, fmt.Errorf("discard the mirror: %w", err)
	}
	return openMirror(m.dir)
}

// removeOthers removes mirrors of what was followed before.
func removeOthers(dir string) error {
	siblings, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "mirror-*"))
	if err != nil {
		return err
	}
	for _, other := range siblings {
		if !strings.HasPrefix(other, dir) {
			if err := os.RemoveAll(other); err != nil {
				return fmt.Errorf("remove an old mirror: %w", err)
			}
		}
	}
	return nil
}

// describe returns a commit for people.
func describe(c *object.Commit) api.CommitInfo {
	subject, _, _ := strings.Cut(strings.TrimSpace(c.Message), "\n")
	if len(subject) > 200 {
		subject = strings.ToValidUTF8(subject[:200], "")
	}
	return api.CommitInfo{
		Commit:  api.Commit(c.Hash.String()),
		Author:  c.Author.Name,
		Subject: subject,
		Time:    c.Committer.When.UTC().Truncate(time.Second),
	}
}
