package fencer

import (
	"errors"
	"os"
	"time"

	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/satellite"
)

// Config is what a fencer is started with.
type Config struct {
	Socket  string // path of the Unix socket
	Version string // told on Ping
}

// Serve runs a fencer until it is told to quit. It returns an error when another
// one serves the socket.
func Serve(cfg Config) error {
	s := &server{cfg: cfg, poke: make(chan struct{}, 1), quit: make(chan struct{})}
	defer close(s.quit)
	return satellite.Serve(cfg.Socket, func() error {
		s.warm()
		s.degraded = harden()
		go s.watch()
		return nil
	}, func(r Request) (any, bool) { return s.answer(r), r.Verb == Quit })
}

type server struct {
	cfg      Config
	warden   Warden
	degraded []string
	poke     chan struct{} // something new was said
	quit     chan struct{} // closed when it ends
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
