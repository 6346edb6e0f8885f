package identity

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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

// TestSigning: a node without the authority's key gets certificates that are
// signed for it: for its server, kept over restarts, and for users, and the one
// is never the other.
func TestSigning(t *testing.T) {
	dir, joined := t.TempDir(), t.TempDir()
	authority, err := Open(dir, Fleet{})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(names []string, ip string) (certificate, key []byte) {
		request, key, err := Request(names, []net.IP{net.ParseIP(ip)})
		if err != nil {
			t.Fatal(err)
		}
		if certificate, err = authority.Sign(request); err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	certificate, key := sign([]string{"n2"}, "192.0.2.2")
	if err := Install(joined, authority.Fleet, authority.CA(), certificate, key); err != nil {
		t.Fatal(err)
	}
	address := func() string {
		id, err := Read(joined)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := id.Server(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.IPAddresses[0].String()
	}
	if got := address(); got != "192.0.2.2" {
		t.Errorf("joined with %s", got)
	}
	id, err := Read(joined)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Replace(sign([]string{"n2"}, "192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	if got := address(); got != "192.0.2.7" {
		t.Errorf("after it was replaced: %s", got)
	}
	other, err := Open(t.TempDir(), Fleet{})
	if err != nil {
		t.Fatal(err)
	}
	request, key, err := Request([]string{"n2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Sign(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Replace(foreign, key); err == nil {
		t.Error("a certificate of another fleet was taken")
	}
	if _, err := id.SignClient(request); err == nil {
		t.Error("a node without the key signs")
	}

	request, _, err = ClientRequest("ada", []string{"system:masters"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sign func([]byte) ([]byte, error)
		want x509.ExtKeyUsage
	}{"user": {authority.SignClient, x509.ExtKeyUsageClientAuth}, "server": {authority.Sign, x509.ExtKeyUsageServerAuth}} {
		raw, err := c.sign(request)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(leaf.ExtKeyUsage) != 1 || leaf.ExtKeyUsage[0] != c.want || (leaf.Subject.CommonName == "ada") != (name == "user") {
			t.Errorf("%s: %v for %v", name, leaf.ExtKeyUsage, leaf.Subject)
		}
	}
}
