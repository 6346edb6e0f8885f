package members

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// session is the gossip of this node at one address.
type session struct {
	*Members
	list  *memberlist.Memberlist
	ring  *ring
	queue *memberlist.TransmitLimitedQueue
	at    netip.AddrPort
	wg    sync.WaitGroup
	// outdone counts how often others knew a newer card of this node.
	outdone int
}

// tend follows keys and addresses and looks for who is missing, until ctx ends or
// this node's address is another one.
func (s *session) tend(ctx context.Context, advertised string) {
	ticker := time.NewTicker(glance)
	defer ticker.Stop()
	next := time.Now()
	for round := 0; ; {
		urgent := false
		select {
		case <-s.urgent:
			urgent = true
		default:
		}
		now := time.Now()
		if due := !now.Before(next); due || urgent {
			if due {
				next = now.Add(rejoinEvery - glance/2)
				s.renumber(advertised)
				s.keep()
			}
			s.rejoin(ctx, round)
			round++
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := s.ring.follow(s.cfg.Keys(), time.Now()); err != nil {
			s.say("keys", fmt.Sprintf("take the fleet's gossip keys: %v", err))
		}
		if s.cfg.Advertise() != advertised {
			return
		}
	}
}

// renumber makes a card of this node that is newer than any that others know:
// its files may be older than what it said last. Who must do so again and again
// shares its key with another machine.
func (s *session) renumber(advertised string) {
	if !s.table.outdone() {
		return
	}
	if s.outdone++; s.outdone > 2 {
		s.say("twin", "another machine speaks with this node's key: its state folder was copied; run shoal reset on one of them")
	}
	if err := s.table.own(card{peer: advertised, gossip: s.at}, 0); err != nil {
		s.say("card", err.Error())
		return
	}
	_ = s.list.UpdateNode(glance / 2) // who is not reached now hears of it later
}

// crowd is how many are looked for in one round: after a split of a large fleet
// one is enough, and everybody looks.
const crowd = 16

// target is somebody to look for: "" is whoever is there.
type target struct {
	id        string
	addresses []string // of gossip
}

// rejoin looks for those that are not there.
func (s *session) rejoin(ctx context.Context, round int) {
	for _, t := range s.targets(round) {
		key := t.id + t.addresses[0]
		s.mu.Lock()
		busy := s.busy[key]
		s.busy[key] = true
		s.mu.Unlock()
		if busy {
			continue
		}
		s.wg.Go(func() {
			s.lookFor(ctx, t)
			s.mu.Lock()
			delete(s.busy, key)
			s.mu.Unlock()
		})
	}
}

// lookFor joins at the addresses of somebody until it is there.
func (s *session) lookFor(ctx context.Context, t target) {
	for _, address := range t.addresses {
		found, err := resolve(ctx, address)
		if err != nil {
			continue
		}
		for _, at := range found {
			if ctx.Err() != nil || s.table.isThere(t.id) {
				return
			}
			if t.id != "" || !s.known(at) {
				_, _ = s.list.Join([]string{at.String()}) // the next round tries again
			}
		}
	}
}

// known reports whether somebody who is there gossips at an address.
func (s *session) known(at netip.AddrPort) bool {
	return at == s.at || slices.ContainsFunc(s.table.alive(), func(id string) bool {
		c, _ := s.table.card(id)
		return c.gossip == at
	})
}

// somebody returns where another node gossips that is there, others each round;
// nothing when there is none.
func (s *session) somebody(round int) []string {
	others := slices.DeleteFunc(s.table.alive(), func(id string) bool { return id == s.cfg.Node.ID })
	if len(others) == 0 {
		return nil
	}
	c, _ := s.table.card(others[round%len(others)])
	return []string{c.gossip.String()}
}

// targets returns whom to look for in this round: the next of those who are
// missing, and the seeds when somebody is.
func (s *session) targets(round int) []target {
	roster := s.cfg.Roster()
	missing := slices.DeleteFunc(slices.Sorted(maps.Keys(roster)), func(id string) bool {
		return id == s.cfg.Node.ID || s.table.isThere(id)
	})
	alone := s.table.size() <= 1
	var out []target
	for i := range min(crowd, len(missing)) {
		id := missing[(round*crowd+i)%len(missing)]
		t := target{id: id}
		if c, known := s.table.card(id); known {
			t.addresses = append(t.addresses, c.gossip.String())
		}
		for _, peer := range roster[id] {
			host, _, err := net.SplitHostPort(peer)
			if err != nil {
				continue
			}
			// It is not known where it gossips; most do at the same port.
			if at := net.JoinHostPort(host, strconv.Itoa(int(s.at.Port()))); !slices.Contains(t.addresses, at) {
				t.addresses = append(t.addresses, at)
			}
		}
		if len(t.addresses) == 0 {
			// Nothing is known of it: somebody who is there may know more.
			t.addresses = s.somebody(round)
		}
		if len(t.addresses) > 0 {
			out = append(out, t)
		}
	}
	if s.cfg.Seeds != nil && (alone || len(missing) > 0) {
		for _, seed := range s.cfg.Seeds() {
			if seed = strings.TrimSpace(seed); seed != "" {
				out = append(out, target{addresses: []string{seed}})
			}
		}
	}
	return out
}
