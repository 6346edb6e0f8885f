package daemon

import (
	"context"
	"io"
	"slices"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
)

// gitPeers returns the nodes that are there and have accepted a commit of a unit,
// the leader first.
func (c *control) gitPeers(unit string) []gitsync.Peer {
	company := c.part.View()
	nodes := slices.Clone(company.Board.Nodes)
	slices.SortStableFunc(nodes, func(a, b api.NodeInfo) int {
		switch company.Leader {
		case a.Name:
			return -1
		case b.Name:
			return 1
		}
		return 0
	})
	var out []gitsync.Peer
	for _, n := range nodes {
		if n.Name == c.cfg.Node || n.Units[unit] == "" || company.Board.HealthOf(n.Name).Gone() {
			continue
		}
		out = append(out, gitsync.Peer{Name: n.Name, Commit: n.Units[unit], Open: func(ctx context.Context) (io.ReadWriter, error) {
			return c.part.Open(ctx, n.Name, streamObjects)
		}})
	}
	return out
}
