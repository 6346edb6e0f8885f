package members

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// file keeps cards over restarts. It is a SHA-256 and a bundle of cards.
type file struct{ path string }

// load returns the cards, none when there is no file.
func (f file) load() ([]named, error) {
	raw, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the addresses of members: %w", err)
	}
	if len(raw) < sha256.Size || sha256.Sum256(raw[sha256.Size:]) != [sha256.Size]byte(raw) {
		return nil, fmt.Errorf("read the addresses of members from %s: the file is damaged; they are learnt anew", f.path)
	}
	return unbundle(raw[sha256.Size:])
}

// save replaces the file.
func (f file) save(cards []named) error {
	body := bundle(cards)
	sum := sha256.Sum256(body)
	tmp, err := os.CreateTemp(filepath.Dir(f.path), ".new-*")
	if err != nil {
		return fmt.Errorf("keep the addresses of members: %w", err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone when the rename worked
	_, err = tmp.Write(append(sum[:], body...))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("keep the addresses of members: %w", err)
	}
	return nil
}
