package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/shoal-dev/shoal/gossip"
	"github.com/shoal-dev/shoal/gossip/identity"
)

// end is one node with its Peers, listening on the loopback interface.
type end struct {
	*Peers
	node     identity.Node
	address  string
	received chan gossip.Message
	closed   chan string
}

// fleet is what the ends know of each other.
type fleet struct {
	mu      sync.Mutex
	ends    map[string]*end
	removed map[string]bool
}

// newFleet makes two members.
func newFleet(t *testing.T) (*fleet, []*end) {
	t.Helper()
	f := &fleet{ends: map[string]*end{}, removed: map[string]bool{}}
	out := make([]*end, 2)
	for i := range out {
		out[i] = f.add(t)
		f.mu.Lock()
		f.ends[out[i].node.ID] = out[i]
		f.mu.Unlock()
	}
	return f, out
}

func (f *fleet) member(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ends[id] == nil || f.removed[id] {
		return errors.New("not in the roster")
	}
	return nil
}

func (f *fleet) add(t *testing.T) *end {
	t.Helper()
	node, err := identity.OpenNode(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &end{node: node, address: listener.Addr().String(), received: make(chan gossip.Message, 1000), closed: make(chan string, 10)}
	e.Peers, err = New(Config{
		Node: node, Listener: listener, Member: f.member,
		Dial: func(ctx context.Context, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
		Addresses: func(id string) []string {
			f.mu.Lock()
			defer f.mu.Unlock()
			if other := f.ends[id]; other != nil {
				return []string{"127.0.0.1:1", other.address}
			}
			return nil
		},
		Receive: func(m gossip.Message) { e.received <- m },
		Closed:  func(id string) { e.closed <- id },
		Answer: func(_ context.Context, from Asker, kind string, question []byte) ([]byte, error) {
			if kind != "echo" {
				return nil, fmt.Errorf("nobody answers %q", kind)
			}
			return append([]byte(from.ID[:4]+" "), question...), nil
		},
		Serve: func(_ context.Context, _, _ string, s Stream) error {
			_, err := io.Copy(s, s)
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return e
}

func (e *end) next(t *testing.T) gossip.Message {
	t.Helper()
	select {
	case m := <-e.received:
		return m
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came within 10 s")
		return gossip.Message{}
	}
}

// TestMessagesArriveInOrder, from the first one on.
func TestMessagesArriveInOrder(t *testing.T) {
	_, ends := newFleet(t)
	a, b := ends[0], ends[1]
	for n := range uint64(100) {
		if err := a.Send(gossip.Message{From: a.node.ID, To: b.node.ID, Ping: &gossip.Ping{N: n}}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range uint64(100) {
		if m := b.next(t); m.Ping == nil || m.Ping.N != n || m.From != a.node.ID {
			t.Fatalf("got %+v, want ping %d", m, n)
		}
	}
	// A node that is not there costs nothing but its messages.
	if err := a.Send(gossip.Message{From: a.node.ID, To: "nowhere", Ping: &gossip.Ping{}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); a.Dropped() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a message to nowhere was not dropped")
		}
	}
}

// TestOnlyMembersTalk: strangers, those that were removed and those that use
// another's name are refused; a stranger may ask.
func TestOnlyMembersTalk(t *testing.T) {
	f, ends := newFleet(t)
	a, b := ends[0], ends[1]
	stranger := f.add(t)
	for name, m := range map[string]gossip.Message{
		"stranger": {From: stranger.node.ID, To: b.node.ID, Ping: &gossip.Ping{N: 1}},
		"liar":     {From: b.node.ID, To: b.node.ID, Ping: &gossip.Ping{N: 2}},
	} {
		from := stranger
		if name == "liar" {
			from = a
		}
		for range 3 {
			if err := from.Send(m); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	if err := a.Send(gossip.Message{From: a.node.ID, To: b.node.ID, Grant: &gossip.Grant{}}); err != nil {
		t.Fatal(err)
	}
	if m := b.next(t); m.Grant == nil {
		t.Errorf("got %+v", m)
	}
	answer, err := AskStranger(t.Context(), stranger.node, stranger.cfg, b.address, []string{b.node.ID}, "echo", []byte("hello"))
	if err != nil || string(answer) != stranger.node.ID[:4]+" hello" {
		t.Errorf("a stranger's question: %q, %v", answer, err)
	}
	if _, err := AskStranger(t.Context(), stranger.node, stranger.cfg, b.address, []string{a.node.ID}, "echo", nil); err == nil || !strings.Contains(err.Error(), "no node of the fleet") {
		t.Errorf("another node answered: %v", err)
	}
	if _, err := stranger.Open(t.Context(), b.node.ID, "logs"); err == nil {
		s, _ := stranger.Open(t.Context(), b.node.ID, "logs")
		if _, err := s.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "not in the roster") {
			t.Errorf("a stranger's stream: %v", err)
		}
	}
	f.mu.Lock()
	f.removed[a.node.ID] = true
	f.mu.Unlock()
	if err := a.Send(gossip.Message{From: a.node.ID, To: b.node.ID, Grant: &gossip.Grant{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Open(t.Context(), a.node.ID, "x"); err == nil { // b has not heard of it: its way is open, the other one is not
		select {
		case id := <-b.closed:
			if id != a.node.ID {
				t.Errorf("%s was closed", id)
			}
		case m := <-b.received:
			t.Errorf("a removed node was heard: %+v", m)
		case <-time.After(5 * time.Second):
			t.Error("the stream of a removed node stays open")
		}
	}
}

func TestStreamsAndQuestions(t *testing.T) {
	_, ends := newFleet(t)
	a, b := ends[0], ends[1]
	if _, err := a.Ask(t.Context(), b.node.ID, "unheard", nil); err == nil || !strings.Contains(err.Error(), `nobody answers "unheard"`) {
		t.Errorf("got %v", err)
	}
	s, err := a.Open(t.Context(), b.node.ID, "echo")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789"), 50000)
	go func() {
		_, _ = s.Write(want) // the reader sees what is missing
		_ = s.CloseWrite()
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(want), err)
	}
}

// TestGarbage: what is no message ends the stream it came on, and nothing else.
func TestGarbage(t *testing.T) {
	_, ends := newFleet(t)
	a, b := ends[0], ends[1]
	for _, garbage := range [][]byte{nil, []byte("{"), []byte("[]"), []byte("{}{}"), bytes.Repeat([]byte("["), 1<<20), []byte(`{"from":1}`)} {
		conn, err := a.conn(b.node.ID)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, talkMethod)
		if err == nil {
			err = stream.SendMsg(&frame{garbage})
		}
		if err == nil {
			err = stream.RecvMsg(&frame{})
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%.10q: %v", garbage, err)
		}
	}
	raw, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", b.address) //nolint:gosec // an attacker does not care
	if err == nil {
		_, _ = raw.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		raw.Close()
	}
	if err := a.Send(gossip.Message{From: a.node.ID, To: b.node.ID, Ping: &gossip.Ping{N: 7}}); err != nil {
		t.Fatal(err)
	}
	if m := b.next(t); m.Ping == nil || m.Ping.N != 7 {
		t.Errorf("got %+v", m)
	}
}

// TestStreamsOutliveSilence: the connection of an open stream is not idle, though
// no message was sent for long.
func TestStreamsOutliveSilence(t *testing.T) {
	_, ends := newFleet(t)
	a, b := ends[0], ends[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := a.Open(ctx, b.node.ID, "echo")
	if err != nil {
		t.Fatal(err)
	}
	key := lineKey{b.node.ID, bulk}
	if !a.retire(key, &line{}) {
		t.Fatal("an idle line did not retire")
	}
	if _, err := s.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(s); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	cancel()
	deadline := time.Now().Add(10 * time.Second)
	for open := 1; open > 0; open = a.streams(b.node.ID) {
		if time.Now().After(deadline) {
			t.Fatal("a stream that has ended is counted for ever")
		}
	}
	a.retire(key, &line{})
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conns[b.node.ID] != nil {
		t.Error("the connection stays without a stream")
	}
}

func (p *Peers) streams(id string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened[id]
}
