package gossip

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
)

// What a node believes of its fleet.

// Board returns what is known of the fleet, by names. Damaged records are left
// out.
func (c *Core) Board() api.Board {
	var b api.Board
	for _, id := range slices.Sorted(maps.Keys(c.roster)) {
		p := c.roster[id]
		if p.Removed {
			if c.names[p.Name] == "" {
				b.Health = append(b.Health, api.NodeHealth{Node: p.Name, Status: api.NodeLeft})
			}
			continue
		}
		var info api.NodeInfo
		if r := c.records.Get(id, Info); r.Body.Known() && r.Value(&info) == nil {
			info.Name = p.Name
			b.Nodes = append(b.Nodes, info)
		}
		var states api.PodStates
		if r := c.records.Get(id, States); r.Body.Known() && r.Value(&states) == nil {
			states.Node = p.Name
			b.Pods = append(b.Pods, states.After(info.System.BootID))
		}
		var usage api.Usage
		if r := c.records.Get(id, Usage); r.Body.Known() && r.Value(&usage) == nil {
			usage.Node = p.Name
			b.Usage = append(b.Usage, usage)
		}
	}
	slices.SortFunc(b.Nodes, func(x, y api.NodeInfo) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Pods, func(x, y api.PodStates) int { return strings.Compare(x.Node, y.Node) })
	slices.SortFunc(b.Usage, func(x, y api.Usage) int { return strings.Compare(x.Node, y.Node) })
	b.Health = append(b.Health, c.Health()...)
	slices.SortFunc(b.Health, func(x, y api.NodeHealth) int { return strings.Compare(x.Node, y.Node) })
	if c.lead != nil {
		b.ConnectivityChecked = c.lead.checked
	}
	b.Assigned, _ = DecodeSet(c.set) // what this node stored decodes; the zero set is none
	return b
}

// Facts returns the scheduler's memory as last heard of, or decided.
func (c *Core) Facts() api.Facts {
	facts, err := DecodeFacts(c.facts)
	if err != nil {
		return api.Facts{}
	}
	return facts
}

// A Mark tells whether anything is new: two equal ones mean that nothing is.
// Usage, by which nothing is decided, does not count.
type Mark struct {
	records, set, facts Hash
	authority           Authority
	leads               bool
	health              string
	ledger              ledgerVersion
	refused             string
	revision            uint64 // of what the leader believes of others
}

// Mark returns the present one.
func (c *Core) Mark() Mark {
	health := ""
	if unwell := c.Health(); len(unwell) > 0 {
		health = fmt.Sprint(unwell)
	}
	return Mark{
		c.records.Hash(false), c.set.Hash(), c.facts.Hash(), c.authority, c.lead != nil, health, c.ledger.ledgerVersion, c.refused, c.revision,
	}
}

// Health returns what is known of nodes that are not well, by name.
func (c *Core) Health() []api.NodeHealth {
	if c.lead != nil {
		return c.lead.unwell(c)
	}
	return slices.Clone(c.health)
}

// Authority returns whom this node follows, itself included, and how long ago
// it was heard of.
func (c *Core) Authority() (Authority, time.Duration) {
	if c.lead != nil {
		return c.lead.authority, 0
	}
	return c.authority, c.now - c.granted
}

// Leads reports whether this node leads.
func (c *Core) Leads() bool { return c.lead != nil }

// SetRefused tells that peers do not take this node's messages, and why. Until
// somebody grants it something again it leads nobody.
func (c *Core) SetRefused(why string) {
	if c.lead != nil {
		if c.lead.authority.Quorate {
			return // by somebody who has not heard of it yet
		}
		c.layDown(why)
	}
	c.refused, c.refusedAt = why, c.now
}

// unwanted reports whether peers do not want this node. Who is refused is told
// so with every message; when nobody says it any more, nobody is there.
func (c *Core) unwanted() bool { return c.refused != "" && c.now-c.refusedAt < refusalHolds }

// Refused says why the fleet does not want this node, "" when it does.
func (c *Core) Refused() string { return c.refused }
