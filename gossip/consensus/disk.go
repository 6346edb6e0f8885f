package consensus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Disk is a folder that a Store has for itself. Names have no slashes. It need
// not be safe for concurrent use.
type Disk interface {
	// Open opens a file for reading and writing, and makes it when it is not
	// there. It has at least size bytes afterwards, all of them allocated:
	// writing within them fails for no lack of space.
	Open(name string, size int64) (File, error)
	// ReadFile returns the whole file; fs.ErrNotExist when there is none.
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a file. It is durable when WriteFile returns, and after
	// a crash at any moment the old or the new one is there.
	WriteFile(name string, data []byte) error
	// Rename renames a file over another one, durably.
	Rename(from, to string) error
	// Remove removes a file; one that is not there is no error.
	Remove(name string) error
}

// File is an open file of a Disk.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when all that was written is durable.
	Sync() error
}

// Folder is a Disk on a folder of the machine.
type Folder struct {
	path string
	lock *os.File
	once sync.Once
}

// OpenFolder makes the folder when it is not there and locks it: two daemons on
// one state would vote twice. Close unlocks it.
func OpenFolder(path string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open the consensus folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the consensus folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the consensus folder %s (does another daemon run on it?): %w", path, err), lock.Close())
	}
	return &Folder{path: path, lock: lock}, nil
}

// Close unlocks the folder.
func (d *Folder) Close() error {
	var err error
	d.once.Do(func() { err = d.lock.Close() })
	return err
}

// Open implements Disk.
func (d *Folder) Open(name string, size int64) (File, error) {
	path := filepath.Join(d.path, name)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() < size {
		if err = allocate(f, info.Size(), size); err == nil {
			err = errors.Join(f.Sync(), d.sync())
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("allocate %d bytes for %s: %w", size, path, err), f.Close())
	}
	return folderFile{f}, nil
}

// allocate makes the file size bytes long, with blocks behind all of them. A
// file system that cannot promise blocks gets zeros.
func allocate(f *os.File, have, size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	zeros := make([]byte, 64<<10)
	for at := have; at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// ReadFile implements Disk.
func (d *Folder) ReadFile(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(d.path, name))
}

// WriteFile implements Disk.
func (d *Folder) WriteFile(name string, data []byte) error {
	temporary := name + ".tmp"
	f, err := os.OpenFile(filepath.Join(d.path, temporary), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.Remove(temporary))
	}
	return d.Rename(temporary, name)
}

// Rename implements Disk.
func (d *Folder) Rename(from, to string) error {
	if err := os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to)); err != nil {
		return err
	}
	return d.sync()
}

// Remove implements Disk.
func (d *Folder) Remove(name string) error {
	err := os.Remove(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sync makes the names in the folder durable.
func (d *Folder) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// folderFile syncs data only: the size never changes after Open.
type folderFile struct{ *os.File }

// Sync implements File.
func (f folderFile) Sync() error { return unix.Fdatasync(int(f.Fd())) }
