package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeKeyStays over restarts, and a damaged one is told about.
func TestNodeKeyStays(t *testing.T) {
	dir := t.TempDir()
	first, err := OpenNode(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenNode(dir)
	if err != nil || again.ID != first.ID || len(first.ID) != 64 {
		t.Errorf("got %s, want %s: %v", again.ID, first.ID, err)
	}
	path := filepath.Join(dir, "node.key")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's file: %v, %v", info.Mode(), err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := OpenNode(dir); err == nil && n.ID != first.ID {
			// A flipped bit of the seed is another key, and nobody can tell:
			// the roster does not know it.
			continue
		} else if err != nil && !strings.Contains(err.Error(), "node.key") {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

// TestPeerTLS: each end proves its key and judges the other's.
func TestPeerTLS(t *testing.T) {
	a, err := OpenNode(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenNode(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	connect := func(server, client func(id string, key ed25519.PublicKey) error) (error, error) {
		serverConfig, err := a.PeerTLS(server)
		if err != nil {
			t.Fatal(err)
		}
		clientConfig, err := b.PeerTLS(client)
		if err != nil {
			t.Fatal(err)
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		y, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		x, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		defer y.Close()
		result := make(chan error)
		go func() {
			conn := tls.Server(x, serverConfig)
			err := conn.Handshake()
			if err == nil {
				_, err = conn.Write([]byte("x"))
			}
			x.Close()
			result <- err
		}()
		conn := tls.Client(y, clientConfig)
		_, clientErr := conn.Read(make([]byte, 1))
		y.Close()
		return <-result, clientErr
	}
	is := func(want Node) func(string, ed25519.PublicKey) error {
		return func(id string, key ed25519.PublicKey) error {
			if id != want.ID || !key.Equal(want.Public) {
				return errors.New("somebody else")
			}
			return nil
		}
	}
	if serverErr, clientErr := connect(is(b), is(a)); serverErr != nil || clientErr != nil {
		t.Errorf("right keys: %v, %v", serverErr, clientErr)
	}
	if serverErr, _ := connect(is(a), is(a)); serverErr == nil {
		t.Error("the server takes another node")
	}
	if _, clientErr := connect(is(b), is(b)); clientErr == nil {
		t.Error("the client takes another node")
	}
}

func TestToken(t *testing.T) {
	token := NewToken("f", "ca", []string{"b", "a"}, time.Unix(1800000000, 5))
	got, err := ParseToken(" " + token.String() + "\n")
	if err != nil || got.Fleet != "f" || got.CA != "ca" || got.Nodes[0] != "a" || !got.Expires.Equal(token.Expires) || got.Hash() != token.Hash() {
		t.Errorf("got %+v, %v, want %+v", got, err, token)
	}
	if other := NewToken("f", "ca", []string{"a"}, token.Expires); other.Hash() == token.Hash() {
		t.Error("two tokens have one secret")
	}
	for _, bad := range []string{"", "x", tokenPrefix, tokenPrefix + "!", tokenPrefix + "e30", token.String()[:40], "shoal2." + token.String()[7:]} {
		if _, err := ParseToken(bad); err == nil || !strings.Contains(err.Error(), "token") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzToken(f *testing.F) {
	f.Add(NewToken("f", "ca", []string{"a"}, time.Unix(1, 0)).String())
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil {
			if again, err := ParseToken(token.String()); err != nil || again.Hash() != token.Hash() {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}
