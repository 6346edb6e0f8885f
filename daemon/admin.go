package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip/identity"
	"github.com/shoal-dev/shoal/scheduler"
)

// Status is what `shoal status` shows. Its JSON form is stable.
type Status struct {
	Version    string           `json:"version"`
	Fleet      string           `json:"fleet"`
	Node       string           `json:"node"`
	Leader     string           `json:"leader,omitempty"`
	Quorate    bool             `json:"quorate"` // the leader has a quorum behind it
	Heard      time.Duration    `json:"heard"`   // since the leader was last heard of, in nanoseconds
	Epoch      uint64           `json:"epoch"`
	Term       uint64           `json:"term"`
	Entry      uint64           `json:"entry"` // of the fleet's log, up to which this node knows it
	Voters     []string         `json:"voters,omitempty"`
	Health     []api.NodeHealth `json:"health,omitempty"` // of nodes that are not well
	Units      []api.UnitStatus `json:"units"`
	Nodes      []api.NodeInfo   `json:"nodes"`
	Usage      []api.Usage      `json:"usage,omitempty"` // by node
	Pods       []PodStatus      `json:"pods"`
	Alarms     []string         `json:"alarms,omitempty"` // what is wrong beside units, nodes and pods
	Observed   bool             `json:"observed"`         // the pods of the machine have been listed since the daemon started
	AsOf       time.Time        `json:"asOf"`
	Repository string           `json:"repository"`
}

// PodStatus is one pod in Status.
type PodStatus struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Node      string     `json:"node,omitempty"`
	Phase     string     `json:"phase"`
	Ready     bool       `json:"ready"`
	Restarts  int32      `json:"restarts,omitempty"`
	Commit    api.Commit `json:"commit"`
	Reason    string     `json:"reason,omitempty"`
	Message   string     `json:"message,omitempty"`
}

// Decision is everything from which the next decision is made, for `shoal plan`.
type Decision struct {
	Fleet string    `json:"fleet"`
	Board api.Board `json:"board"`
	Facts api.Facts `json:"facts"`
}

// listenSocket listens on the socket for commands of this machine's root. A
// socket that a dead daemon left behind is replaced: the lock on the state
// folder says that there is no living one.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace the socket %s: %w", path, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for local commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect the socket %s: %w", path, err), listener.Close())
	}
	return listener, nil
}

func (c *control) adminHandler(version string, id *identity.Identity) http.Handler {
	mux := http.NewServeMux()
	answer := func(path string, value func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(value()) // a client that is gone needs no answer
		})
	}
	answer("/status", func() any { return c.status(version) })
	answer("/decision", func() any {
		d := Decision{Fleet: id.Fleet.ID}
		if v := c.view.Load(); v != nil {
			d.Board, d.Facts = v.board, v.facts
		}
		return d
	})
	mux.HandleFunc("POST /sync", func(w http.ResponseWriter, _ *http.Request) {
		c.repo.Poke()
		w.WriteHeader(http.StatusAccepted)
	})
	c.fleetHandlers(mux, id)
	// Profiles, for whoever is root here: curl --unix-socket ... /debug/pprof/profile
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (c *control) status(version string) Status {
	s := Status{Version: version, Fleet: c.fleet, Node: c.cfg.Node, Repository: shownURL(c.cfg.Repository.URL), Units: c.repo.Status()}
	v := c.view.Load()
	if v == nil {
		return s
	}
	s.Nodes, s.Observed, s.AsOf, s.Health = v.board.Nodes, v.observed, v.published, v.board.Health
	s.Usage = c.part.View().Board.Usage // newer than the view: usage wakes nobody
	s.Leader, s.Quorate, s.Heard = v.company.Leader, v.company.Authority.Quorate, v.company.Heard
	s.Epoch, s.Term, s.Voters = v.company.Authority.Epoch, v.company.Authority.Term, c.part.Voters()
	s.Entry = v.company.Ledger.Index
	s.Alarms = append(s.Alarms, c.part.Alarms()...)
	if full := c.diskAlarm(); full != "" {
		s.Alarms = append(s.Alarms, full)
	}
	s.Alarms = append(s.Alarms, c.agent.Alarms()...)
	if v.company.Refused != "" {
		s.Alarms = append(s.Alarms, v.company.Refused)
	}
	s.Alarms = append(s.Alarms, scheduler.Hindrances(v.facts)...)
	s.Alarms = append(s.Alarms, scheduler.Deviations(v.facts)...)
	for _, conflict := range v.conflicts {
		s.Alarms = append(s.Alarms, conflict.String())
	}
	pending := map[string]string{}
	for _, u := range v.board.Assigned.Pending {
		pending[u.Pod.Instance] = u.Reason
	}
	for _, p := range v.pods {
		out := PodStatus{Namespace: p.pod.Namespace, Name: p.pod.Name(), Node: p.node, Phase: "Pending"}
		if p.state != nil {
			out.Phase, out.Ready, out.Restarts = string(p.state.Phase), p.state.Ready, p.state.Restarts
			out.Commit, out.Reason, out.Message = p.state.Commit, p.state.Reason, p.state.Message
		}
		if out.Reason == "" && p.state != nil {
			for _, d := range p.state.Containers {
				if d.Waiting != "" && d.Message != "" { // how far its image is, or which volume is missing
					out.Reason, out.Message = d.Waiting, d.Message
				}
			}
		}
		if why, waits := pending[p.pod.Instance]; waits {
			out.Reason, out.Message = "Unschedulable", why
		}
		if p.removed {
			out.Phase = "Terminating"
		}
		s.Pods = append(s.Pods, out)
	}
	return s
}

// Client asks a daemon on this machine over its socket.
type Client struct{ http http.Client }

// NewClient returns a client for the daemon with this socket. It connects when
// it is first asked.
func NewClient(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err != nil {
			return nil, fmt.Errorf("no shoal daemon answers on %s (is `shoal run` running, and are you root?): %w", socket, err)
		}
		return conn, nil
	}
	return newClient(dial)
}

// NewClientOn returns a client for the daemon that dial leads to.
func NewClientOn(dial func(context.Context) (net.Conn, error)) *Client {
	return newClient(func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) })
}

func newClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *Client {
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Second}}
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (Status, error) { return ask[Status](ctx, c, "/status") }

// Decision asks for what the next decision would be made from.
func (c *Client) Decision(ctx context.Context) (Decision, error) {
	return ask[Decision](ctx, c, "/decision")
}

func ask[T any](ctx context.Context, c *Client, path string) (T, error) {
	var out T
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shoal"+path, nil)
	if err != nil {
		return out, fmt.Errorf("ask the daemon: %w", err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return out, unwrapURL(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return out, nil
}

// unwrapURL returns what went wrong, without the URL of a socket that says
// nothing.
func unwrapURL(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// shownURL is a repository's URL without what may be secret.
func shownURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.User == nil {
		return raw
	}
	u.User = nil
	return u.String()
}
