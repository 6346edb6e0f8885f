package fencer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/shoal-dev/shoal/runtime/fence"
)

// Config is what a fencer is started with.
type Config struct {
	Socket  string // path of the Unix socket
	Version string // told on Ping
}

// Serve runs a fencer until it is told to quit. It returns an error when another
// one serves the socket.
func Serve(cfg Config) error {
	lock, err := os.OpenFile(cfg.Socket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", cfg.Socket, err)
	}
	defer lock.Close() //nolint:errcheck // the process ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: another fencer serves it: %w", cfg.Socket, err)
	}
	if err := os.Remove(cfg.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	_ = os.Chmod(cfg.Socket, 0o600)

	s := &server{cfg: cfg, poke: make(chan struct{}, 1), quit: make(chan struct{})}
	s.warm()
	s.degraded = harden()
	go s.watch()
	go func() {
		<-s.quit
		listener.Close()
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go s.talk(conn)
	}
}

type server struct {
	cfg      Config
	warden   Warden
	degraded []string
	poke     chan struct{} // something new was said
	once     sync.Once
	quit     chan struct{}
}

// warm goes once along the way on which pods are killed, so that its code is in
// memory when it is needed.
func (s *server) warm() {
	var w Warden
	nobody := fence.Pod{Instance: "nobody", Group: "/shoal-fencer/nobody"}
	_ = w.Hold(nobody)   // it is well formed
	_, _ = w.Tick(Now()) // there is nothing to kill
	_ = group(nobody.Group).term()
	_ = w.Release(nobody.Instance)
}

// watch ends what must end, in time.
func (s *server) watch() {
	timer := time.NewTimer(time.Hour)
	for {
		select {
		case <-s.quit:
			return
		case <-timer.C:
		case <-s.poke:
		}
		now := Now()
		next, _ := s.warden.Tick(now) // it is tried again; there is nobody to tell
		timer.Reset(time.Hour)
		if next > 0 {
			timer.Reset(max(time.Millisecond, next-now))
		}
	}
}

// talk answers one connection until it ends.
func (s *server) talk(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 4<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		var request Request
		var reply Reply
		if err := json.Unmarshal(line, &request); err != nil {
			reply.Error = "read request: " + err.Error()
		} else {
			reply = s.answer(request)
		}
		out, err := json.Marshal(reply)
		if err != nil {
			return
		}
		if _, err := conn.Write(append(out, '\n')); err != nil {
			return
		}
		if request.Verb == Quit {
			s.once.Do(func() { close(s.quit) })
			return
		}
	}
}

func (s *server) answer(r Request) Reply {
	// Who was there first: what must end ends before a new lease counts, so
	// that the reply tells of it.
	reply := Reply{Fenced: s.warden.Fenced(Now())}
	s.warden.Renew(r.Lease)
	var err error
	switch r.Verb {
	case Hold:
		if err = s.warden.Hold(r.Pod); err == nil {
			_, err = s.warden.Tick(Now()) // what was shut is open again before something starts
		}
	case Release:
		err = s.warden.Release(r.Instance)
	case Renew:
	case List:
		reply.Pods, reply.Lease = s.warden.Held()
	case Ping, Quit:
		reply.Version, reply.PID, reply.Degraded = s.cfg.Version, os.Getpid(), s.degraded
	default:
		err = errors.New("unknown verb " + string(r.Verb))
	}
	if err != nil {
		reply.Error = err.Error()
	}
	select {
	case s.poke <- struct{}{}:
	default:
	}
	return reply
}
