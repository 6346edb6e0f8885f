package daemon

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/gossip/peer"
)

// exchanger is a Repository that gives its objects to other nodes, and takes
// theirs while it does not reach what it follows. See gitsync.Repo.
type exchanger interface {
	Serve(ctx context.Context, stream io.ReadWriter) error
	Follow(peers func(unit string) []gitsync.Peer)
}

// followPeers makes the repository ask other nodes while it is not reached.
func (c *control) followPeers() {
	if repo, able := c.repo.(exchanger); able {
		repo.Follow(c.gitPeers)
	}
}

// giveObjects serves another node.
func (c *control) giveObjects(ctx context.Context, stream peer.Stream) error {
	repo, able := c.repo.(exchanger)
	if !able {
		return errors.New("this node has no objects to give")
	}
	return repo.Serve(ctx, stream)
}

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
