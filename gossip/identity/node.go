package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Node is the key that a node is known by, for as long as it lives. Its name
// and its addresses may change.
type Node struct {
	ID      string // NodeID of the public key
	Public  ed25519.PublicKey
	Private ed25519.PrivateKey
}

// NodeID returns the ID of the node with this key: the SHA-256 of the key, in
// hexadecimal.
func NodeID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// OpenNode reads the node's key from dir, or makes one when there is none.
func OpenNode(dir string) (Node, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Node{}, fmt.Errorf("make the identity folder: %w", err)
	}
	path := filepath.Join(dir, "node.key")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return Node{}, fmt.Errorf("make the node's key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			return Node{}, fmt.Errorf("make the node's key: %w", err)
		}
		if err := write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
			return Node{}, err
		}
		return newNode(private), nil
	}
	if err != nil {
		return Node{}, fmt.Errorf("read the node's key: %w", err)
	}
	private, err := parseNode(raw)
	if err != nil {
		return Node{}, fmt.Errorf("read the node's key from %s: %w: put the file back from a backup, or remove the folder %s and join again", path, err, dir)
	}
	return newNode(private), nil
}

func parseNode(raw []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("it is not a PEM file")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an ed25519 key")
	}
	return private, nil
}

func newNode(private ed25519.PrivateKey) Node {
	public := private.Public().(ed25519.PublicKey) //nolint:errcheck // an ed25519 key has no other
	return Node{ID: NodeID(public), Public: public, Private: private}
}

// The validity of node certificates says nothing: a node that was off for years
// or whose clock stands at 1970 must get in, and one that was removed must not,
// which the roster says.
var (
	always  = time.Unix(0, 0)
	forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Certificate makes the certificate that the node shows its peers. It is signed
// by the node itself: whom a peer trusts is a matter of the roster's keys.
func (n Node) Certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: n.ID}, NotBefore: always, NotAfter: forever,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, n.Public, n.Private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the node's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: n.Private}, nil
}

// PeerTLS returns the TLS configuration for streams between nodes, at either
// end. accept judges the other end's key, which is proven to be its own; an
// error ends the connection.
func (n Node) PeerTLS(accept func(id string, key ed25519.PublicKey) error) (*tls.Config, error) {
	certificate, err := n.Certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, //nolint:gosec // no authority vouches for peers: VerifyConnection pins their keys
		SessionTicketsDisabled: true, // every connection is judged anew
		NextProtos:             []string{"h2"},
		VerifyConnection: func(state tls.ConnectionState) error {
			key, err := PeerKey(state)
			if err != nil {
				return err
			}
			return accept(NodeID(key), key)
		},
	}, nil
}

// PeerKey returns the node key that the other end of a connection has proven to
// hold.
func PeerKey(state tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(state.PeerCertificates) != 1 {
		return nil, fmt.Errorf("the peer shows %d certificates, not its own one", len(state.PeerCertificates))
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the peer's certificate holds no node key")
	}
	return key, nil
}
