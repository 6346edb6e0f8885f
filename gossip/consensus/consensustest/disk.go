package consensustest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/shoal-dev/shoal/gossip/consensus"
)

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// What a Disk returns.
var (
	ErrNoSpace = errors.New("no space left on device")
	ErrIO      = errors.New("input/output error")
	ErrPower   = errors.New("the power is gone")
)

// Disk is a consensus.Disk in memory. Its zero value is an empty one. All
// methods may be called concurrently.
type Disk struct {
	mu    sync.Mutex
	files map[string]*content
	full  bool
	sick  bool
	off   bool
	left  int // operations until the power goes, when armed
	armed bool
	lies  bool
	life  int // grows with every crash; files opened before are dead
	syncs int
}

// content is a file: what programs see, and what a crash leaves.
type content struct {
	now     []byte // grows as it is written; the rest of size are zeros
	durable []byte
	size    int64
	pending []write // since the last sync, in order
}

type write struct {
	at   int64
	data []byte
}

// Fill makes the disk full, or not: what is allocated can still be written.
func (d *Disk) Fill(full bool) { d.set(func() { d.full = full }) }

// Break makes every sync fail from now on, or not.
func (d *Disk) Break(sick bool) { d.set(func() { d.sick = sick }) }

// Lie makes syncs return without making anything durable, or not.
func (d *Disk) Lie(lies bool) { d.set(func() { d.lies = lies }) }

// CrashAfter lets the power go during the n-th operation that writes: it and all
// after it fail with ErrPower, until Restart. With 0 it stays on.
func (d *Disk) CrashAfter(n int) { d.set(func() { d.left, d.armed = n, n > 0 }) }

// Off reports whether the power is gone.
func (d *Disk) Off() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.off
}

// Syncs returns how often anything was made durable.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

func (d *Disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// Restart is what a machine finds after it lost its power: of what was not
// synced, keep says of each sector of each write whether it reached the disk; a
// nil keep keeps all, as after the end of a mere process. Files that were open
// are dead.
func (d *Disk) Restart(keep func() bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.life++
	d.off, d.armed = false, false
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		c := d.files[name]
		for _, w := range c.pending {
			for from := 0; from < len(w.data); {
				to := min(len(w.data), from+sector-int((w.at+int64(from))%sector))
				if keep == nil || keep() {
					c.durable = put(c.durable, w.at+int64(from), w.data[from:to])
				}
				from = to
			}
		}
		c.pending, c.now = nil, slices.Clone(c.durable)
	}
}

// Flip changes one bit of a file: the bit of a byte, counted from its beginning.
// It reports whether the file has such a byte.
func (d *Disk) Flip(name string, at int64, bit uint) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.files[name]
	if c == nil || at >= c.size {
		return false
	}
	one := make([]byte, 1)
	copy(one, tail(c.durable, at))
	one[0] ^= 1 << (bit % 8)
	c.durable = put(c.durable, at, one)
	c.now = put(c.now, at, one)
	return true
}

// Cut makes the end of a file zeros, as if it had never been written. The data
// of the file ends where the last byte is that is no zero.
func (d *Disk) Cut(name string, bytes int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.files[name]
	if c == nil {
		return false
	}
	end := int64(len(c.durable))
	for end > 0 && c.durable[end-1] == 0 {
		end--
	}
	c.durable = c.durable[:max(0, end-bytes)]
	c.now = slices.Clone(c.durable)
	return end > 0
}

// Names returns the files there are, sorted.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files))
}

// Used returns how many bytes of a file were ever written.
func (d *Disk) Used(name string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.files[name]; c != nil {
		return int64(len(c.now))
	}
	return 0
}

// Copy returns a disk with the same files, as a backup would be.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &Disk{files: map[string]*content{}}
	for name, c := range d.files {
		out.files[name] = &content{now: slices.Clone(c.now), durable: slices.Clone(c.now), size: c.size}
	}
	return out
}

// step counts an operation that writes. The power may be gone before it, or go
// during it.
func (d *Disk) step() error {
	if d.off {
		return ErrPower
	}
	if d.armed {
		if d.left--; d.left <= 0 {
			d.off = true
			return ErrPower
		}
	}
	return nil
}

// Open implements consensus.Disk.
func (d *Disk) Open(name string, size int64) (consensus.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	c := d.files[name]
	if c == nil || c.size < size {
		if d.full {
			return nil, ErrNoSpace
		}
		if c == nil {
			c = d.add(name)
		}
		c.size = size
	}
	return &file{disk: d, content: c, life: d.life}, nil
}

func (d *Disk) add(name string) *content {
	if d.files == nil {
		d.files = map[string]*content{}
	}
	c := &content{}
	d.files[name] = c
	return c
}

// ReadFile implements consensus.Disk.
func (d *Disk) ReadFile(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.off {
		return nil, ErrPower
	}
	c := d.files[name]
	if c == nil {
		return nil, fmt.Errorf("read %s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(c.now), nil
}

// WriteFile implements consensus.Disk.
func (d *Disk) WriteFile(name string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	if d.full {
		return ErrNoSpace
	}
	if d.sick {
		return ErrIO
	}
	c := d.add(name)
	c.now, c.durable, c.size = slices.Clone(data), slices.Clone(data), int64(len(data))
	d.syncs++
	return nil
}

// Rename implements consensus.Disk.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	c := d.files[from]
	if c == nil {
		return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
	}
	delete(d.files, from)
	d.files[to] = c
	return nil
}

// Remove implements consensus.Disk.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	delete(d.files, name)
	return nil
}

// file is an open file of a Disk.
type file struct {
	disk    *Disk
	content *content
	life    int
}

func (f *file) alive() error {
	if f.disk.off || f.life != f.disk.life {
		return ErrPower
	}
	return nil
}

// ReadAt implements consensus.File.
func (f *file) ReadAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.alive(); err != nil {
		return 0, err
	}
	n := int(min(int64(len(b)), max(0, f.content.size-at)))
	clear(b[:n])
	copy(b[:n], tail(f.content.now, at))
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements consensus.File.
func (f *file) WriteAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.alive(); err != nil {
		return 0, err
	}
	if end := at + int64(len(b)); end > f.content.size {
		if f.disk.full {
			return 0, ErrNoSpace
		}
		f.content.size = end
	}
	err := f.disk.step() // a write that the power ends may still have happened
	f.content.now = put(f.content.now, at, b)
	f.content.pending = append(f.content.pending, write{at, slices.Clone(b)})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Sync implements consensus.File.
func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.alive(); err != nil {
		return err
	}
	if f.disk.sick {
		return ErrIO
	}
	if err := f.disk.step(); err != nil {
		return err
	}
	if f.disk.lies {
		return nil
	}
	for _, w := range f.content.pending {
		f.content.durable = put(f.content.durable, w.at, w.data)
	}
	f.content.pending = nil
	f.disk.syncs++
	return nil
}

// Close implements consensus.File.
func (f *file) Close() error { return nil }

// put writes data at a place of b, which grows as needed.
func put(b []byte, at int64, data []byte) []byte {
	if end := int(at) + len(data); end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[at:], data)
	return b
}

// tail returns what b holds from a place on.
func tail(b []byte, at int64) []byte {
	if at >= int64(len(b)) {
		return nil
	}
	return b[at:]
}
