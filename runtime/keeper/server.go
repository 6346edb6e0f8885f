package keeper

import (
	"os"
	"sort"

	"github.com/shoal-dev/shoal/runtime/satellite"
)

// Config is what a keeper is started with.
type Config struct {
	Socket  string // path of the Unix socket
	Version string // told on Ping
}

// Serve runs a keeper until it is told to quit. It returns an error when
// another one serves the socket.
func Serve(cfg Config) error {
	pump, err := newPump()
	if err != nil {
		return err
	}
	defer pump.close()
	s := &server{cfg: cfg, pump: pump}
	return satellite.Serve(cfg.Socket, func() error {
		go pump.run()
		return nil
	}, func(r Request) (any, bool) { return s.answer(r), r.Verb == Quit })
}

type server struct {
	cfg  Config
	pump *pump
}

func (s *server) answer(r Request) Reply {
	switch r.Verb {
	case Open:
		if err := s.pump.open(r); err != nil {
			return Reply{Error: err.Error()}
		}
		return Reply{}
	case Tee:
		if err := s.pump.tee(r); err != nil {
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
