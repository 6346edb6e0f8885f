package gitsync

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing"
)

// Objects go from node to node one after another, each with its type and its
// length before it and a zero byte after the last, the whole compressed. Packs
// would do, but whoever reads a pack believes what it says of its size before it
// has read it.

// maxObjects is how many objects one exchange may bring.
const maxObjects = 200_000

// objectHeadSize is the length of what comes before an object.
const objectHeadSize = 5

// write sends objects.
func (m *mirror) write(w io.Writer, hashes []plumbing.Hash) error {
	compressed := gzip.NewWriter(w)
	for _, hash := range hashes {
		if err := m.writeOne(compressed, hash); err != nil {
			return err
		}
	}
	_, err := compressed.Write([]byte{0})
	return errors.Join(err, compressed.Close())
}

func (m *mirror) writeOne(w io.Writer, hash plumbing.Hash) (err error) {
	object, err := m.store.EncodedObject(plumbing.AnyObject, hash)
	if err != nil {
		return fmt.Errorf("object %s: %w", hash, err)
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(object.Type())}, uint32(object.Size())) //nolint:gosec // collector has seen to its size
	if _, err := w.Write(head); err != nil {
		return err
	}
	r, err := object.Reader()
	if err != nil {
		return fmt.Errorf("object %s: %w", hash, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.CopyN(w, r, object.Size())
	return err
}

// read takes in what write has sent: whole objects of the known types, up to
// MaxPack bytes of them. What they are is known by their hashes, which are
// computed here.
func (m *mirror) read(r io.Reader) error {
	plain, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return err
	}
	left := int64(MaxPack)
	for range maxObjects {
		var head [objectHeadSize]byte
		if _, err := io.ReadFull(plain, head[:1]); err != nil {
			return cutOff(err)
		}
		if head[0] == 0 {
			return nil
		}
		if _, err := io.ReadFull(plain, head[1:]); err != nil {
			return cutOff(err)
		}
		size := int64(binary.BigEndian.Uint32(head[1:]))
		if left -= size; left < 0 {
			return fmt.Errorf("more than %d MiB", MaxPack>>20)
		}
		if err := m.readOne(plain, plumbing.ObjectType(head[0]), size); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d objects", maxObjects)
}

func (m *mirror) readOne(r io.Reader, kind plumbing.ObjectType, size int64) error {
	switch kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject:
	default:
		return fmt.Errorf("an object of the type %d, which nothing needs", kind)
	}
	object := &plumbing.MemoryObject{}
	object.SetType(kind)
	if _, err := io.CopyN(object, r, size); err != nil {
		return cutOff(err)
	}
	_, err := m.store.SetEncodedObject(object)
	return err
}

// cutOff tells of an end that comes too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
