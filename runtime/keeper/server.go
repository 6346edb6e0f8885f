package keeper

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sort"
	"sync"
	"syscall"
)

// Config is what a keeper is started with.
type Config struct {
	Socket  string // path of the Unix socket
	Version string // told on Ping
}

// Serve runs a keeper until it is told to quit. It returns an error when
// another one serves the socket.
func Serve(cfg Config) error {
	lock, err := os.OpenFile(cfg.Socket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock %s: %w", cfg.Socket, err)
	}
	defer lock.Close() //nolint:errcheck // the process ends
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: another keeper serves it: %w", cfg.Socket, err)
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

	pump, err := newPump()
	if err != nil {
		return err
	}
	defer pump.close()
	go pump.run()

	server := &server{cfg: cfg, pump: pump, quit: make(chan struct{})}
	go func() {
		<-server.quit
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
		go server.talk(conn)
	}
}

type server struct {
	cfg  Config
	pump *pump
	once sync.Once
	quit chan struct{}
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
	switch r.Verb {
	case Open:
		if err := s.pump.open(r); err != nil {
			return Reply{Error: err.Error()}
		}
		return Reply{}
	case Close:
		s.pump.release(r.ID)
		return Reply{}
	case List:
		held := s.pump.held()
		sort.Strings(held)
		return Reply{Held: held}
	case Ping, Quit:
		return Reply{Version: s.cfg.Version, PID: os.Getpid()}
	}
	return Reply{Error: "unknown verb " + string(r.Verb)}
}
