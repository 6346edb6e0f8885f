package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-dev/shoal/runtime/logs/cri"
)

// chunk is how much is read from one FIFO before the next has its turn.
const chunk = 16 << 10

// pump moves bytes from FIFOs to log files, all of them in one goroutine with
// one buffer: its memory does not grow with the number of containers.
type pump struct {
	epoll int

	mu      sync.Mutex
	streams map[int32]*stream // by file descriptor
	logs    map[string]*log   // by ID
	in, out []byte            // the run goroutine's, and release's under mu
}

// log is one container's log.
type log struct {
	request Request
	file    cri.File
	streams []*stream
}

type stream struct {
	fd    int
	name  cri.Stream
	lines cri.Lines
	log   *log
	tees  []int // descriptors of those who listen
}

func newPump() (*pump, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &pump{
		epoll:   fd,
		streams: map[int32]*stream{},
		logs:    map[string]*log{},
		in:      make([]byte, chunk),
	}, nil
}

func (p *pump) close() { _ = syscall.Close(p.epoll) }

// open begins to hold a container's FIFOs. They are opened for reading and
// writing, so that they neither block nor end when a writer comes and goes.
func (p *pump) open(r Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held, found := p.logs[r.ID]; found {
		if held.request == r {
			return nil
		}
		p.letGo(held)
	}
	l := &log{request: r, file: cri.File{Path: r.Path}}
	for _, end := range []struct {
		path string
		name cri.Stream
	}{{r.Stdout, cri.Stdout}, {r.Stderr, cri.Stderr}} {
		if end.path == "" {
			continue
		}
		fd, err := syscall.Open(end.path, syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			p.letGo(l)
			return fmt.Errorf("open %s: %w", end.path, err)
		}
		s := &stream{fd: fd, name: end.name, log: l}
		l.streams = append(l.streams, s)
		p.streams[int32(fd)] = s
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			p.letGo(l)
			return fmt.Errorf("watch %s: %w", end.path, err)
		}
	}
	p.logs[r.ID] = l
	return nil
}

// tee lets somebody listen to a container. What a listener does not read in time
// it misses: nobody holds a container up by listening.
func (p *pump) tee(r Request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, found := p.logs[r.ID]
	if !found {
		return fmt.Errorf("container %s is not held", r.ID)
	}
	for _, s := range l.streams {
		path := map[cri.Stream]string{cri.Stdout: r.Stdout, cri.Stderr: r.Stderr}[s.name]
		if path == "" {
			continue
		}
		fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		s.tees = append(s.tees, fd)
	}
	return nil
}

// pass gives bytes to those who listen, and leaves those who are gone.
func (s *stream) pass(b []byte) {
	s.tees = slices.DeleteFunc(s.tees, func(fd int) bool {
		for rest := b; len(rest) > 0; {
			n, err := syscall.Write(fd, rest)
			switch {
			case errors.Is(err, syscall.EINTR):
			case errors.Is(err, syscall.EAGAIN):
				return false
			case err != nil:
				_ = syscall.Close(fd)
				return true
			default:
				rest = rest[n:]
			}
		}
		return false
	})
}

// release drains a container's FIFOs and lets them go.
func (p *pump) release(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, found := p.logs[id]
	if !found {
		return
	}
	now := time.Now()
	for _, s := range l.streams {
		// A FIFO holds 64 KiB; a writer that goes on writing is not waited for.
		for n := 0; n < 2*(64<<10)/chunk && p.read(s); n++ {
		}
		p.out = s.lines.Flush(p.out[:0], s.name, now)
		l.file.Write(p.out, 1, now)
	}
	p.letGo(l)
}

func (p *pump) letGo(l *log) {
	for _, s := range l.streams {
		delete(p.streams, int32(s.fd))
		_ = syscall.Close(s.fd)
		for _, fd := range s.tees {
			_ = syscall.Close(fd)
		}
	}
	l.streams = nil
	l.file.Close()
	delete(p.logs, l.request.ID)
}

func (p *pump) held() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]string, 0, len(p.logs))
	for id := range p.logs {
		out = append(out, id)
	}
	return out
}

// run moves bytes until the pump is closed.
func (p *pump) run() {
	events := make([]syscall.EpollEvent, 64)
	for {
		n, err := syscall.EpollWait(p.epoll, events, -1)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		p.mu.Lock()
		for _, event := range events[:n] {
			if s, found := p.streams[event.Fd]; found {
				p.read(s)
			}
		}
		p.mu.Unlock()
	}
}

// read moves one chunk and reports whether there was one.
func (p *pump) read(s *stream) bool {
	n, err := syscall.Read(s.fd, p.in)
	if n <= 0 || (err != nil && !errors.Is(err, syscall.EINTR)) {
		return errors.Is(err, syscall.EINTR)
	}
	s.pass(p.in[:n])
	now := time.Now()
	// Short lines grow when they become entries: bound what is assembled.
	for part := p.in[:n]; len(part) > 0; {
		piece := part[:min(len(part), 2<<10)]
		part = part[len(piece):]
		p.out = s.lines.Next(p.out[:0], s.name, now, piece)
		s.log.file.Write(p.out, bytes.Count(p.out, []byte{'\n'}), now)
	}
	return true
}
