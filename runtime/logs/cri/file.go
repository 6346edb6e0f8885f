package cri

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Kubelet's defaults. Source: kubernetes.io, Logging Architecture, "Log rotation".
const (
	MaxSize = 10 << 20 // bytes of one file
	Keep    = 5        // files, the current one included
)

// File is a log file that is rotated by size: path is the current file, path.1
// the newest rotated one. A File never blocks and never fails: what cannot be
// written is dropped, and noted in the file once writing works again. Not safe
// for concurrent use.
type File struct {
	Path    string
	MaxSize int64 // 0 means MaxSize
	Keep    int   // 0 means Keep

	file    *os.File
	size    int64
	dropped int // entries lost since the last successful write
	cause   error
}

// Write appends complete entries, of which there are count.
func (f *File) Write(entries []byte, count int, now time.Time) {
	if len(entries) == 0 {
		return
	}
	if err := f.ready(int64(len(entries))); err != nil {
		f.drop(count, err)
		return
	}
	if f.dropped > 0 {
		note := Entry{
			Time: now, Stream: Stderr,
			Text: fmt.Appendf(nil, "[shoal: %d entries lost: %v]", f.dropped, f.cause),
		}.Append(nil)
		if err := f.append(note); err != nil {
			f.drop(count, err)
			return
		}
		f.dropped, f.cause = 0, nil
	}
	if err := f.append(entries); err != nil {
		f.drop(count, err)
	}
}

// append writes all of b or nothing: a torn line would spoil the next one.
func (f *File) append(b []byte) error {
	n, err := f.file.Write(b)
	if err != nil && n > 0 {
		if f.file.Truncate(f.size) != nil {
			f.size += int64(n)
		}
		return err
	}
	f.size += int64(n)
	return err
}

func (f *File) drop(count int, err error) {
	f.dropped += count
	f.cause = err
}

// ready opens or rotates the file so that n more bytes may be written.
func (f *File) ready(n int64) error {
	limit := f.MaxSize
	if limit == 0 {
		limit = MaxSize
	}
	if f.file != nil && f.size > 0 && f.size+n > limit {
		f.Close()
		f.rotate()
	}
	if f.file != nil {
		return nil
	}
	file, err := open(f.Path)
	if os.IsNotExist(err) {
		if err = os.MkdirAll(filepath.Dir(f.Path), 0o755); err == nil {
			file, err = open(f.Path)
		}
	}
	if err != nil {
		return err
	}
	f.file, f.size = file, 0
	if info, err := file.Stat(); err == nil {
		f.size = info.Size()
	}
	return nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
}

// rotate moves path.N to path.N+1 and path to path.1. A rename that does not
// work loses old entries, never new ones.
func (f *File) rotate() {
	keep := f.Keep
	if keep == 0 {
		keep = Keep
	}
	for i := keep - 1; i > 1; i-- {
		_ = os.Rename(Rotated(f.Path, i-1), Rotated(f.Path, i))
	}
	if keep > 1 {
		_ = os.Rename(f.Path, Rotated(f.Path, 1))
	} else {
		_ = os.Remove(f.Path)
	}
}

// Rotated returns the name of the n-th newest rotated file; 0 is the current one.
func Rotated(path string, n int) string {
	if n == 0 {
		return path
	}
	return path + "." + strconv.Itoa(n)
}

// Dropped returns how many entries are lost and not yet noted, and why.
func (f *File) Dropped() (int, error) { return f.dropped, f.cause }

// Close closes the file; a later Write opens it again.
func (f *File) Close() {
	if f.file != nil {
		_ = f.file.Close()
		f.file = nil
	}
}
