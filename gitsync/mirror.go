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
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"golang.org/x/sys/unix"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync/manifest"
)

// References of the mirror. Everything they reach is kept, all else may go.
const (
	acceptedRef plumbing.ReferenceName = "refs/shoal/accepted"
	previousRef plumbing.ReferenceName = "refs/shoal/previous" // in force before the accepted one
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
	if err := removeAll(dir+".old", dir+".new", dir+".peer"); err != nil {
		return nil, fmt.Errorf("open the mirror: %w", err)
	}
	if err := sweep(dir); err != nil {
		return nil, fmt.Errorf("open the mirror: %w", err)
	}
	return createMirror(dir)
}

func removeAll(paths ...string) (err error) {
	for _, path := range paths {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// sweep removes what interrupted writes left behind.
func sweep(dir string) error {
	var left []string
	for _, pattern := range []string{"objects/pack/tmp_*", "objects/tmp_*", "refs/shoal/tmp-*", "refs/shoal/keep/tmp-*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	return removeAll(left...)
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
	if err := writeFile(m.path(name), hash.String()+"\n"); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// path returns the file of a reference; references of the mirror are never packed.
func (m *mirror) path(name plumbing.ReferenceName) string {
	return filepath.Join(m.dir, filepath.FromSlash(name.String()))
}

// flush brings everything that was written to the disk of a folder.
func flush(dir string) (err error) {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return unix.Syncfs(int(d.Fd()))
}

// writeFile replaces a file or leaves it as it is, whatever happens: go-git
// would truncate a reference before it knows that the disk has room.
func writeFile(path, text string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "tmp-*.lock")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
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
			if err := os.Remove(m.path(name)); err != nil {
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
	for _, name := range append(m.kept(), acceptedRef, previousRef, tipRef) {
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
		return nil, &mirrorError{fmt.Errorf("commit %s: %w", api.Commit(hash.String()).Short(), err)}
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
		return nil, blame(err)
	}
	if len(m.trees) > 50_000 {
		clear(m.trees)
	}
	m.trees[hash] = entries
	return entries, nil
}

// blob implements objects.
func (m *mirror) blob(hash plumbing.Hash) ([]byte, error) {
	data, err := readObject(m.store, plumbing.BlobObject, hash, manifest.MaxFile)
	return data, blame(err)
}

// blame tells an error of the mirror from one of what it holds.
func blame(err error) error {
	var size *sizeError
	var commit *commitError
	if err == nil || errors.As(err, &size) || errors.As(err, &commit) {
		return err
	}
	return &mirrorError{err}
}

func readTree(store storer.EncodedObjectStorer, hash plumbing.Hash) ([]treeEntry, error) {
	data, err := readObject(store, plumbing.TreeObject, hash, MaxTree)
	if _, ok := errors.AsType[*sizeError](err); ok {
		return nil, refuse("tree %s %v", hash, err)
	}
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(data)
	if err != nil {
		return nil, refuse("tree %s is not one that Git writes: %v", hash, err)
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
	for _, name := range append(m.kept(), acceptedRef, previousRef, tipRef) {
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
