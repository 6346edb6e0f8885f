package peer

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/gossip"
)

// TestCopiesAreRefused: while a node's daemon talks, another one with its key is
// refused and told so; once the first one is gone the other is its successor.
func TestCopiesAreRefused(t *testing.T) {
	_, ends := newFleet(t)
	a, b := ends[0], ends[1]
	ping := func(from *end, n uint64) {
		t.Helper()
		if err := from.Send(gossip.Message{From: a.node.ID, To: b.node.ID, Ping: &gossip.Ping{N: n}}); err != nil {
			t.Fatal(err)
		}
	}
	ping(a, 1)
	b.next(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan string, 100)
	cfg := a.cfg
	cfg.Boot, cfg.Listener = 99, listener
	cfg.Refused = func(why string) { refused <- why }
	copied, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- copied.Run(ctx) }()
	defer func() { cancel(); <-done }()
	clone := &end{Peers: copied}
	told := ""
	for n := uint64(2); told == "" && n < 200; n++ {
		ping(a, n)
		ping(clone, 1000)
		select {
		case told = <-refused:
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !strings.Contains(told, "state folder was copied") {
		t.Fatalf("the copy was told %q", told)
	}
	for len(b.received) > 0 {
		if m := b.next(t); m.Ping.N >= 1000 {
			t.Fatal("the copy was heard")
		}
	}
	time.Sleep(rivalAfter + 100*time.Millisecond) // the first one falls silent
	for {
		ping(clone, 1001)
		select {
		case m := <-b.received:
			if m.Ping.N != 1001 {
				continue
			}
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
}
