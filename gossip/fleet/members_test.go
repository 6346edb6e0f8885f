package fleet

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/members"
)

// gossips makes a house gossip when it starts again, and returns where.
func (h *house) gossips(seeds ...string) string {
	h.t.Helper()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0") // to learn a free port
	if err != nil {
		h.t.Fatal(err)
	}
	bind := udp.LocalAddr().String()
	_ = udp.Close() // only its number was wanted
	h.gossip = members.Config{Bind: bind, Advertise: func() string { return h.address }, Seeds: func() []string { return seeds }}
	h.stop()
	h.start()
	return bind
}

// TestGossip: nodes hear of each other and of a new address; a node that is
// removed costs the gossip key.
func TestGossip(t *testing.T) {
	h1 := found(t)
	h2, h3 := h1.join("n2"), h1.join("n3")
	all := []*house{h1, h2, h3}
	agree(t, 20*time.Second, all...)
	seed := h1.gossips()
	h2.gossips(seed)
	h3.gossips(seed)
	eventually(t, 20*time.Second, "all are present", func() bool {
		return !slices.ContainsFunc(all, func(h *house) bool { return !slices.Equal(h.Present(), []string{"n1", "n2", "n3"}) })
	})

	h3.stop()
	before := h3.address
	other := newHouse(t, "elsewhere")
	h3.address = other.address
	h3.start()
	eventually(t, 20*time.Second, "all know the new address", func() bool {
		return !slices.ContainsFunc(all, func(h *house) bool {
			at := h.addresses(h3.node.ID)
			return len(at) == 0 || at[0] == before || at[0] != h3.address
		})
	})
	agree(t, 20*time.Second, all...)

	h3.stop()
	eventually(t, 20*time.Second, "its goodbye is heard", func() bool { return slices.Equal(h1.Present(), []string{"n1", "n2"}) })
	eventually(t, 20*time.Second, "it is removed", func() bool {
		return h1.Command(t.Context(), gossip.Command{RemoveMember: &gossip.RemoveMember{ID: h3.node.ID}}) == nil
	})
	eventually(t, 20*time.Second, "there is a new gossip key", func() bool {
		keys := h2.View().Ledger.GossipKeys
		return len(keys) == 2 && keys[1].Generation == 2
	})
	if got := h2.members.Addresses(h3.node.ID); got != nil {
		t.Errorf("the removed node is found at %v", got)
	}
}
