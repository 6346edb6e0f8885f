package daemon

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/fleet"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// Init founds a fleet whose only node is this machine.
func Init(cfg Config) (identity.Fleet, error) {
	if os.Geteuid() != 0 {
		return identity.Fleet{}, errors.New("shoal init needs root rights (try sudo)")
	}
	return Local().Init(cfg)
}

// Join brings this machine into a fleet.
func Join(ctx context.Context, cfg Config, address, token string) (gossip.Member, error) {
	if os.Geteuid() != 0 {
		return gossip.Member{}, errors.New("shoal join needs root rights (try sudo)")
	}
	return Local().Join(ctx, cfg, address, token)
}

// Init founds a fleet whose only node is this machine. Run does the same where
// no fleet is.
func (m Machine) Init(cfg Config) (identity.Fleet, error) {
	if err := cfg.Validate(); err != nil {
		return identity.Fleet{}, err
	}
	if f, err := identity.ReadFleet(cfg.identityDir()); err == nil {
		return identity.Fleet{}, fmt.Errorf("this machine is in the fleet %s already (%s): run shoal reset to leave it for good", f.ID, cfg.State)
	}
	id, err := identity.Open(cfg.identityDir(), cfg.wanted())
	if err != nil {
		return identity.Fleet{}, err
	}
	node, err := identity.OpenNode(cfg.identityDir())
	if err != nil {
		return identity.Fleet{}, err
	}
	return id.Fleet, m.found(cfg, id, node)
}

// Join brings this machine into a fleet: it asks the node at address, which the
// token must name.
func (m Machine) Join(ctx context.Context, cfg Config, address, token string) (gossip.Member, error) {
	t, err := identity.ParseToken(token)
	if err != nil {
		return gossip.Member{}, err
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, "7947")
	}
	if f, err := identity.ReadFleet(cfg.identityDir()); err == nil {
		return gossip.Member{}, fmt.Errorf("this machine is in the fleet %s already (%s): run shoal reset to leave it for good, then join", f.ID, cfg.State)
	}
	node, err := identity.OpenNode(cfg.identityDir())
	if err != nil {
		return gossip.Member{}, err
	}
	_, port, err := net.SplitHostPort(cfg.peerAddress(m.Address()))
	if err != nil {
		return gossip.Member{}, fmt.Errorf("peer.listen: %w", err)
	}
	request, key, err := identity.Request(serverNames(cfg.Node, cfg.Network.Domain, m.Address()))
	if err != nil {
		return gossip.Member{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	joined, err := fleet.Join(ctx, cfg.fleetDir(), node, fleet.Invitation{
		Address: address, Token: t, Name: cfg.Node, Port: port, Request: request, Dial: m.Dial,
	})
	if err != nil {
		return gossip.Member{}, err
	}
	if got := identity.FingerprintOf(joined.CA); got != t.CA {
		return gossip.Member{}, fmt.Errorf("join at %s: the API's authority is another one than the token names", address)
	}
	return joined.Ledger.Members[node.ID], identity.Install(cfg.identityDir(), joined.Pinned, joined.CA, joined.Certificate, key)
}

// serverNames returns the names and addresses that the API answers to.
func serverNames(node, domain string, address netip.Addr) ([]string, []net.IP) {
	return []string{node, "localhost", "kubernetes", "kubernetes.default.svc." + domain},
		[]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, address.AsSlice()}
}

// fleetHandlers answers the commands that change the fleet.
func (c *control) fleetHandlers(mux *http.ServeMux, id *identity.Identity) {
	do := func(path string, what func(ctx context.Context, r *http.Request) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), 8*time.Second)
			defer cancel()
			answer, err := what(ctx, r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusConflict)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer) // a client that is gone needs no answer
		})
	}
	do("/token", func(ctx context.Context, r *http.Request) (any, error) {
		life, err := time.ParseDuration(r.FormValue("ttl"))
		if err != nil {
			return nil, fmt.Errorf("ttl: %w", err)
		}
		role := r.FormValue("role")
		token, err := c.part.NewToken(ctx, id.Fingerprint(), life, role)
		return token.String(), err
	})
	do("/remove", func(ctx context.Context, r *http.Request) (any, error) {
		m, known := c.part.View().Ledger.Member(r.FormValue("node"))
		if !known {
			return nil, fmt.Errorf("no node of the fleet is called %q", r.FormValue("node"))
		}
		if m.Name == c.cfg.Node {
			return nil, errors.New("a node cannot remove itself: run the command on another one")
		}
		return m.Name, c.part.Command(ctx, gossip.Command{RemoveMember: &gossip.RemoveMember{ID: m.ID}})
	})
	do("/client", func(ctx context.Context, r *http.Request) (any, error) {
		request, err := base64.StdEncoding.DecodeString(r.FormValue("request"))
		if err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
		certificate, err := c.part.SignClient(ctx, request)
		return string(certificate), err
	})
	do("/drain", func(_ context.Context, r *http.Request) (any, error) {
		drain := r.FormValue("on") != "false"
		if err := c.setDraining(drain); err != nil {
			return nil, err
		}
		c.lookAtNode(r.Context())
		return drain, nil
	})
}

// Command asks the daemon to do something; form are the parameters. It returns
// the daemon's answer.
func (c *Client) Command(ctx context.Context, path string, form map[string]string) (string, error) {
	body := &bytes.Buffer{}
	for key, value := range form {
		if body.Len() > 0 {
			body.WriteByte('&')
		}
		fmt.Fprintf(body, "%s=%s", key, value)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://shoal"+path, body)
	if err != nil {
		return "", fmt.Errorf("ask the daemon: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := c.http.Do(request)
	if err != nil {
		return "", unwrapURL(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		return "", fmt.Errorf("read the daemon's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", errors.New(string(bytes.TrimSpace(text.Bytes())))
	}
	var answer any
	if err := json.Unmarshal(text.Bytes(), &answer); err != nil {
		return "", fmt.Errorf("read the daemon's answer: %w", err)
	}
	return fmt.Sprint(answer), nil
}

// setDraining remembers whether this node should be left by its pods.
func (c *control) setDraining(on bool) error {
	path := c.cfg.drainFile()
	if !on {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("end the drain: %w", err)
		}
		return nil
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// draining fills in what was asked of this node.
func (c *control) draining(info *api.NodeInfo) {
	_, err := os.Stat(c.cfg.drainFile())
	info.Draining = err == nil
	info.Unschedulable = info.Draining
}
