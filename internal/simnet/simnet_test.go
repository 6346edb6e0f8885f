package simnet

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// pair returns a network with a stream from 10.0.0.1 to 10.0.0.2.
func pair(t *testing.T) (n *Network, near, far net.Conn) {
	t.Helper()
	n = New(1)
	n.SetDelay(time.Millisecond)
	a, err := n.Listen("10.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Listen("10.0.0.2:2")
	if err != nil {
		t.Fatal(err)
	}
	if near, err = a.DialTimeout("10.0.0.2:2", time.Second); err != nil {
		t.Fatal(err)
	}
	if far, err = b.Listener().Accept(); err != nil {
		t.Fatal(err)
	}
	return n, near, far
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatalf("send %q: %v", text, err)
	}
}

// receive reads so many bytes and tells how long that took.
func receive(t *testing.T, c net.Conn, want string) time.Duration {
	t.Helper()
	begin, b := time.Now(), make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b, err, want)
	}
	return time.Since(begin)
}

func TestStreams(t *testing.T) {
	tests := map[string]func(t *testing.T, n *Network, near, far net.Conn){
		"what is sent arrives in order, late": func(t *testing.T, _ *Network, near, far net.Conn) {
			send(t, near, "one ")
			send(t, near, "two")
			if took := receive(t, far, "one two"); took != time.Millisecond {
				t.Errorf("after %s, want 1ms", took)
			}
			send(t, far, "back")
			receive(t, near, "back")
		},
		"a short cut delays": func(t *testing.T, n *Network, near, far net.Conn) {
			n.Split([]string{"10.0.0.1"})
			send(t, near, "late")
			time.AfterFunc(3*time.Second, n.Heal)
			if took := receive(t, far, "late"); took != 3*time.Second {
				t.Errorf("after %s, want 3s", took)
			}
		},
		"a long one ends the sender's end, and the other only when it sends": func(t *testing.T, n *Network, near, far net.Conn) {
			n.Cut("10.0.0.2", "10.0.0.1") // the answers are lost
			send(t, near, "lost")
			begin := time.Now()
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, errReset) || time.Since(begin) != patience {
				t.Errorf("the sender gets %v after %s", err, time.Since(begin))
			}
			n.Heal()
			receive(t, far, "lost")
			_ = far.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the other end reads %v", err)
			}
			if _, err := far.Write([]byte("x")); !errors.Is(err, errReset) {
				t.Errorf("the other end sends with %v", err)
			}
		},
		"a host that stalls breaks nothing": func(t *testing.T, n *Network, near, far net.Conn) {
			n.Stall("10.0.0.2")
			send(t, near, "held")
			time.AfterFunc(10*time.Second, func() { n.Resume("10.0.0.2") })
			if took := receive(t, far, "held"); took != 10*time.Second {
				t.Errorf("after %s, want 10s", took)
			}
		},
		"a close is heard of after what was sent": func(t *testing.T, _ *Network, near, far net.Conn) {
			send(t, near, "last")
			_ = near.Close()
			receive(t, far, "last")
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("then %v, want EOF", err)
			}
		},
		"a dead process is heard of, a dead machine is not": func(t *testing.T, n *Network, near, far net.Conn) {
			n.Crash("10.0.0.1")
			_ = near.Close()
			_ = far.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the machine died: %v", err)
			}
			e, _ := n.Listen("10.0.0.1:1")
			c, err := e.DialTimeout("10.0.0.2:2", time.Second)
			if err != nil {
				t.Fatal(err)
			}
			n.Kill("10.0.0.2")
			if _, err := c.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("the process died: %v", err)
			}
			if _, err := e.DialTimeout("10.0.0.2:2", time.Second); !errors.Is(err, errRefused) {
				t.Errorf("dial it: %v", err)
			}
		},
		"a deadline that is set later counts": func(t *testing.T, _ *Network, near, _ net.Conn) {
			begin := time.Now()
			time.AfterFunc(time.Second, func() { _ = near.SetReadDeadline(time.Now()) })
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(begin) != time.Second {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n, near, far := pair(t)
				test(t, n, near, far)
			})
		})
	}
}
