package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/shoal-dev/shoal/runtime/logs/cri"
)

// Options say what part of a log is read.
type Options struct {
	Follow     bool
	Timestamps bool
	Since      time.Time // zero: from the start
	Tail       int64     // entries; negative: all
	Limit      int64     // bytes; 0: no limit
	// Ended reports whether the container has ended for good: then following
	// stops at the end of the file. nil means never.
	Ended func() bool
}

// Read returns the log at path, rotated files included, oldest first, in the
// form that kubectl logs prints. Closing it or ending ctx ends a follow.
func Read(ctx context.Context, path string, opts Options) (io.ReadCloser, error) {
	r := &reader{path: path, opts: opts, left: opts.Limit}
	if err := r.open(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	out, in := io.Pipe()
	r.out = in
	go func() {
		err := r.copy(ctx)
		if errors.Is(err, errLimit) || errors.Is(err, context.Canceled) {
			err = nil
		}
		r.file.Close() //nolint:errcheck // only read
		in.CloseWithError(err)
	}()
	return &pipe{PipeReader: out, cancel: cancel}, nil
}

type pipe struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (p *pipe) Close() error {
	p.cancel()
	return p.PipeReader.Close()
}

var errLimit = errors.New("limit reached")

type reader struct {
	path  string
	opts  Options
	left  int64
	file  *os.File
	index int // rotation number of file when it was opened
	out   *io.PipeWriter
}

// open opens the file in which reading begins, at the place where it begins.
func (r *reader) open() error {
	oldest := 0
	for n := 1; ; n++ {
		if _, err := os.Stat(cri.Rotated(r.path, n)); err != nil {
			break
		}
		oldest = n
	}
	if r.opts.Tail < 0 {
		return r.openAt(oldest, 0)
	}
	want := r.opts.Tail
	for n := 0; n <= oldest; n++ {
		offset, found, err := tail(cri.Rotated(r.path, n), want)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if found >= want || n == oldest {
			return r.openAt(n, offset)
		}
		want -= found
	}
	return nil
}

func (r *reader) openAt(n int, offset int64) error {
	file, err := os.Open(cri.Rotated(r.path, n))
	if errors.Is(err, fs.ErrNotExist) && n == 0 {
		// The container has not written anything: an empty log.
		if err := os.MkdirAll(filepath.Dir(r.path), 0o755); err != nil {
			return err
		}
		file, err = os.OpenFile(r.path, os.O_RDONLY|os.O_CREATE, 0o640)
	}
	if err != nil {
		return err
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		file.Close() //nolint:errcheck // only read
		return err
	}
	r.file, r.index = file, n
	return nil
}

// tail returns where the last n lines of a file begin, and how many there are.
func tail(path string, n int64) (offset, lines int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close() //nolint:errcheck // only read
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return end, 0, err
	}
	block := make([]byte, 32<<10)
	for at := end; at > 0; {
		size := min(int64(len(block)), at)
		at -= size
		if _, err := file.ReadAt(block[:size], at); err != nil {
			return 0, 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if block[i] != '\n' {
				continue
			}
			if lines == n {
				return at + i + 1, lines, nil
			}
			lines++
		}
	}
	return 0, lines, nil
}

// copy writes entries until the end, or for ever when following.
func (r *reader) copy(ctx context.Context) error {
	var changed <-chan fsnotify.Event
	if r.opts.Follow {
		watcher, err := fsnotify.NewWatcher()
		if err == nil {
			defer watcher.Close()
			if watcher.Add(filepath.Dir(r.path)) == nil {
				changed = watcher.Events
			}
		}
	}
	buffer := bufio.NewReaderSize(r.file, cri.MaxEntry+128)
	var torn []byte // a line whose end has not been written yet
	for {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ended := r.opts.Ended != nil && r.opts.Ended()
		line, err := buffer.ReadBytes('\n')
		torn = append(torn, line...)
		if err == nil {
			if err := r.write(torn[:len(torn)-1]); err != nil {
				return err
			}
			torn = torn[:0]
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		moved, err := r.next()
		switch {
		case err != nil:
			return err
		case moved:
			buffer.Reset(r.file)
			torn = torn[:0]
		case !r.opts.Follow || ended:
			return nil
		default:
			select {
			case <-ctx.Done():
			case <-changed:
			case <-time.After(time.Second): // for Ended, and where nothing watches
			}
		}
	}
}

// next moves on to the file that followed the current one, when there is one.
func (r *reader) next() (bool, error) {
	own, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	current, err := os.Stat(r.path)
	if err != nil || os.SameFile(own, current) {
		return false, nil
	}
	// Rotations move files up: find where ours is now. When it is gone, the
	// oldest one left is next.
	n := 1
	for ; ; n++ {
		info, err := os.Stat(cri.Rotated(r.path, n))
		if err != nil || os.SameFile(own, info) {
			break
		}
	}
	file, err := os.Open(cri.Rotated(r.path, n-1))
	if err != nil {
		return false, nil
	}
	// What was written between our last read and the rotation comes first.
	if rest, err := io.ReadAll(r.file); err == nil {
		for line := range bytes.SplitSeq(rest, []byte("\n")) {
			if err := r.write(line); err != nil {
				file.Close() //nolint:errcheck // only read
				return false, err
			}
		}
	}
	r.file.Close() //nolint:errcheck // only read
	r.file = file
	return true, nil
}

// write prints one line of the file.
func (r *reader) write(line []byte) error {
	if len(line) == 0 {
		return nil
	}
	entry, err := cri.Parse(line)
	if err != nil {
		return nil // torn by a crash: not worth stopping for
	}
	if entry.Time.Before(r.opts.Since) {
		return nil
	}
	var out []byte
	if r.opts.Timestamps {
		out = fmt.Append(out, entry.Time.UTC().Format(time.RFC3339Nano), " ")
	}
	out = append(out, entry.Text...)
	if !entry.Partial {
		out = append(out, '\n')
	}
	if r.opts.Limit > 0 && int64(len(out)) >= r.left {
		if _, err := r.out.Write(out[:r.left]); err != nil {
			return err
		}
		return errLimit
	}
	r.left -= int64(len(out))
	_, err = r.out.Write(out)
	return err
}
