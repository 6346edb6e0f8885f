package fleet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/peer"
)

// View is what this node believes of its fleet. The values are shared: they must
// not be changed.
type View struct {
	Board     api.Board
	Facts     api.Facts
	Authority gossip.Authority
	Leader    string        // its name, "" when nobody leads
	Heard     time.Duration // since the leader was last heard of
	Leads     bool          // this node leads
	Ledger    gossip.Ledger
	Refused   string // why the fleet does not want this node
}

// View returns what this node believes now.
func (f *Fleet) View() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := View{
		Board: f.core.Board(), Facts: f.core.Facts(), Leads: f.core.Leads(), Ledger: f.ledger, Refused: f.core.Refused(),
	}
	v.Authority, v.Heard = f.core.Authority()
	v.Leader = f.ledger.Members[v.Authority.Leader].Name
	v.Board.Claims = claims(f.ledger.Claims, f.core.Released())
	for _, n := range v.Board.Nodes {
		if m, known := f.ledger.Member(n.Name); known && n.Peer != "" {
			f.hints[m.ID] = []string{n.Peer}
		}
	}
	return v
}

// Changed is poked when the View may be another one. One reader only.
func (f *Fleet) Changed() <-chan struct{} { return f.changed }

// Self returns this node's place in the fleet.
func (f *Fleet) Self() gossip.Member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ledger.Members[f.cfg.Node.ID]
}

// SetInfo says something new of this node. So do SetStates and SetUsage.
func (f *Fleet) SetInfo(info api.NodeInfo) error { return f.set(gossip.Info, info) }

// SetStates is described at SetInfo.
func (f *Fleet) SetStates(states api.PodStates) error { return f.set(gossip.States, states) }

// SetUsage is described at SetInfo.
func (f *Fleet) SetUsage(usage api.Usage) error { return f.set(gossip.Usage, usage) }

func (f *Fleet) set(kind gossip.Kind, value any) error {
	var err error
	f.do(func() { err = f.core.SetOwn(f.cfg.Boot(), kind, value) })
	return err
}

// Restore hands in what was decided before the daemon's start.
func (f *Fleet) Restore(set api.AssignmentSet, facts api.Facts) error {
	var err error
	f.do(func() { err = f.core.Restore(set, facts) })
	return err
}

// Publish hands out what this node has decided as the leader.
func (f *Fleet) Publish(set api.AssignmentSet, facts api.Facts) error {
	var err error
	f.do(func() { err = f.core.SetDecision(set, facts) })
	return err
}

// Leave says goodbye: the following renewals tell that this node ends.
func (f *Fleet) Leave() { f.do(func() { f.core.Leave() }) }

// Propose changes the ledger. Only the node that leads the consensus can.
func (f *Fleet) Propose(ctx context.Context, command gossip.Command) error {
	if !f.log.State().Leads {
		return errNotLeader
	}
	command.Now = time.Now()
	if _, err := f.log.Propose(ctx, command); err != nil {
		return err
	}
	f.follow()
	return nil
}

// Ask asks a node a question that Config.Answer answers there.
func (f *Fleet) Ask(ctx context.Context, name, kind string, question []byte) ([]byte, error) {
	f.mu.Lock()
	m, known := f.ledger.Member(name)
	f.mu.Unlock()
	if !known {
		return nil, errors.New("no node of the fleet has the name " + name)
	}
	return f.peers.Ask(ctx, m.ID, kind, question)
}

// Open opens an opaque stream of some kind to a node.
func (f *Fleet) Open(ctx context.Context, name, kind string) (peer.Stream, error) {
	f.mu.Lock()
	m, known := f.ledger.Member(name)
	f.mu.Unlock()
	if !known {
		return nil, errors.New("no node of the fleet has the name " + name)
	}
	return f.peers.Open(ctx, m.ID, kind)
}

// Alarms returns what is wrong with this node's part in the consensus.
func (f *Fleet) Alarms() []string {
	var out []string
	state := f.log.State()
	if err := f.log.Absent(); err != nil {
		out = append(out, "this node's copy of the fleet's log is lost, and no leader has given it a new one yet: "+err.Error())
	}
	if state.Failed != nil {
		out = append(out, "this node takes no part in the consensus any more: "+state.Failed.Error())
	}
	if state.Full {
		out = append(out, "the consensus log takes no more changes: the disk of the state folder is full")
	}
	if waits, refused := Recovery(f.cfg.Dir); waits {
		out = append(out, "a recovery of the fleet waits until it is sure that those named lost are silent")
	} else if refused != "" {
		out = append(out, "the last recovery was refused: "+refused)
	}
	if state.NewerEpoch != 0 {
		out = append(out, fmt.Sprintf("other nodes are in epoch %d and this one's log is of %d: it begins a new one when it hears of their leader", state.NewerEpoch, state.Epoch))
	}
	return out
}
