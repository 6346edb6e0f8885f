package gitsync

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

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
