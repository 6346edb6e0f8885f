// Package identity keeps who this fleet and this node are: the fleet's number
// and address ranges, which never change after the first start, and the
// certificate authority for the API.
//
// Everything is kept in one folder, in files that only root can read. A file is
// written under another name and renamed, so a crash leaves the old one or the
// new one.
package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Certificates are good for ten years: the fleet renews its server certificate
// at every start, and revocation is not done by expiry.
const lifetime = 10 * 365 * 24 * time.Hour

// Fleet is what is fixed when a fleet is made.
type Fleet struct {
	ID          string `json:"id"` // a UUID
	PodCIDR     string `json:"podCIDR"`
	ClusterCIDR string `json:"clusterCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	Domain      string `json:"domain"`
	// Repository, Ref and Path are what the fleet follows, for nodes that join.
	Repository string `json:"repository,omitempty"`
	Ref        string `json:"ref,omitempty"`
	Path       string `json:"path,omitempty"`
}

// ranges are the parts of f that never change.
func (f Fleet) ranges() Fleet {
	f.Repository, f.Ref, f.Path = "", "", ""
	return f
}

// Identity is a fleet's identity, read from its folder.
type Identity struct {
	Fleet Fleet
	dir   string
	ca    *x509.Certificate

	mu  sync.Mutex
	key *ecdsa.PrivateKey // nil on a node that joined and does not vote
}

// Open reads the identity from dir, or makes it with the ranges of want when
// there is none yet. Other ranges than those the fleet was made with are an
// error: running pods have their addresses.
func Open(dir string, want Fleet) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the identity folder: %w", err)
	}
	id := &Identity{dir: dir}
	path := filepath.Join(dir, "fleet.json")
	raw, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		want.ID = uuid.NewString()
		raw, _ = json.MarshalIndent(want, "", "  ") // a struct of strings always marshals
		if err := write(path, raw); err != nil {
			return nil, err
		}
		id.Fleet = want
	case err != nil:
		return nil, fmt.Errorf("read the fleet's identity: %w", err)
	default:
		if err := json.Unmarshal(raw, &id.Fleet); err != nil {
			return nil, fmt.Errorf("read the fleet's identity from %s: %w", path, err)
		}
		want.ID = id.Fleet.ID
		if id.Fleet.ranges() != want.ranges() {
			return nil, fmt.Errorf("the fleet was made with other address ranges (%s): set them back, or run shoal reset to make a new fleet", path)
		}
	}
	return id, id.openCA(dir)
}

// ReadFleet reads what is fixed of the fleet that dir belongs to. It makes
// nothing.
func ReadFleet(dir string) (Fleet, error) {
	var fleet Fleet
	raw, err := os.ReadFile(filepath.Join(dir, "fleet.json"))
	if err != nil {
		return fleet, fmt.Errorf("read the fleet's identity: %w", err)
	}
	if err := json.Unmarshal(raw, &fleet); err != nil {
		return fleet, fmt.Errorf("read the fleet's identity from %s: %w", dir, err)
	}
	return fleet, nil
}

// Read reads the identity from dir, and makes nothing when there is none.
func Read(dir string) (*Identity, error) {
	fleet, err := ReadFleet(dir)
	if err != nil {
		return nil, err
	}
	return Open(dir, fleet)
}

func (id *Identity) openCA(dir string) error {
	certPath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := os.ReadFile(keyPath)
	_, served := os.Stat(filepath.Join(dir, "server.key"))
	switch {
	case errors.Is(keyErr, fs.ErrNotExist) && certErr == nil && served == nil:
		return id.readCA(certPEM)
	case errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist):
		return id.makeCA(certPath, keyPath)
	}
	if err := errors.Join(certErr, keyErr); err != nil {
		return fmt.Errorf("read the API's certificate authority: %w", err)
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("read the API's certificate authority from %s: %w", dir, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("read the API's certificate authority from %s: the key is no ECDSA key", dir)
	}
	id.ca, id.key = pair.Leaf, key
	return nil
}

// readCA reads the authority of a node that has joined and holds no key for it.
func (id *Identity) readCA(certPEM []byte) error {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return errors.New("read the API's certificate authority: ca.crt is not a PEM file")
	}
	var err error
	if id.ca, err = x509.ParseCertificate(block.Bytes); err != nil {
		return fmt.Errorf("read the API's certificate authority: %w", err)
	}
	return nil
}

func (id *Identity) makeCA(certPath, keyPath string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make the API's certificate authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "shoal " + id.Fleet.ID},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make the API's certificate authority: %w", err)
	}
	if id.ca, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("make the API's certificate authority: %w", err)
	}
	id.key = key
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	// The key first: a certificate without its key would never be mended.
	if err := write(keyPath, keyPEM); err != nil {
		return err
	}
	return write(certPath, encodeCert(der))
}

// CA returns the certificate of the API's authority, as PEM.
func (id *Identity) CA() []byte { return encodeCert(id.ca.Raw) }

// Pool returns the authority against which client certificates are checked.
func (id *Identity) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(id.ca)
	return pool
}

// Server makes a certificate for the API server under the given names and
// addresses.
//
// A node without the authority's key has the one that it got when it joined, or
// that Replace has kept since.
func (id *Identity) Server(names []string, ips []net.IP) (tls.Certificate, error) {
	if _, key := id.Export(); key == nil {
		newest := filepath.Join(id.dir, "server.pem")
		pair, err := tls.LoadX509KeyPair(newest, newest)
		if err != nil {
			pair, err = tls.LoadX509KeyPair(filepath.Join(id.dir, "server.crt"), filepath.Join(id.dir, "server.key"))
		}
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("read the API server's certificate: %w", err)
		}
		return pair, nil
	}
	certPEM, keyPEM, err := id.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "shoal"}, DNSNames: names, IPAddresses: ips,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// Client makes a client certificate for a user, as PEM. As in Kubernetes the
// common name is the user and the organizations are its groups.
func (id *Identity) Client(user string, groups []string) (certPEM, keyPEM []byte, err error) {
	return id.issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

func (id *Identity) issue(template *x509.Certificate) (certPEM, keyPEM []byte, err error) {
	id.mu.Lock()
	authority := id.key
	id.mu.Unlock()
	if authority == nil {
		return nil, nil, errors.New("this node does not vote and holds no key of the API's authority")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", template.Subject.CommonName, err)
	}
	now := time.Now()
	template.SerialNumber, template.KeyUsage = serial(), x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, id.ca, key.Public(), authority)
	if err != nil {
		return nil, nil, fmt.Errorf("sign a certificate for %s: %w", template.Subject.CommonName, err)
	}
	keyPEM, err = encodeKey(key)
	return encodeCert(der), keyPEM, err
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("the system's random source ended: " + err.Error()) // crypto/rand documents that it never does
	}
	return n
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// write replaces a file as a whole, readable by root only.
func write(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // it is gone when the rename worked
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Export returns the API's authority: its certificate and its key as PEM. The
// key is nil on a node that has none.
func (id *Identity) Export() (certificate, key []byte) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.key == nil {
		return encodeCert(id.ca.Raw), nil
	}
	key, err := encodeKey(id.key)
	if err != nil {
		return encodeCert(id.ca.Raw), nil
	}
	return encodeCert(id.ca.Raw), key
}

// Import takes over the key of the API's authority, which must belong to the
// certificate that this node has.
func (id *Identity) Import(certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("take over the API's authority: %w", err)
	}
	private, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.Equal(id.ca) {
		return errors.New("take over the API's authority: it is another one than this node has joined with")
	}
	if err := write(filepath.Join(id.dir, "ca.key"), key); err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.key = private
	return nil
}

// Pinned returns what is fixed when a fleet is made.
func (id *Identity) Pinned() Fleet { return id.Fleet }

// Request makes a key for the API server, and a request to sign a certificate
// for it: the key as PEM, the request as DER.
func Request(names []string, ips []net.IP) (request, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for the API server: %w", err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "shoal"}, DNSNames: names, IPAddresses: ips}
	if request, err = x509.CreateCertificateRequest(rand.Reader, template, key); err != nil {
		return nil, nil, fmt.Errorf("ask for the API server's certificate: %w", err)
	}
	keyPEM, err = encodeKey(key)
	return request, keyPEM, err
}

// Sign signs a Request. Whatever it asks for, the certificate is for a server
// and never for a user.
func (id *Identity) Sign(request []byte) ([]byte, error) {
	return id.sign(request, func(csr *x509.CertificateRequest) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: "shoal"}, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
	})
}

// sign signs a request for what the template says of it.
func (id *Identity) sign(request []byte, template func(*x509.CertificateRequest) *x509.Certificate) ([]byte, error) {
	id.mu.Lock()
	key := id.key
	id.mu.Unlock()
	if key == nil {
		return nil, errors.New("this node has no key of the API's authority: ask a voter")
	}
	csr, err := x509.ParseCertificateRequest(request)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("read the request for a certificate: %w", err)
	}
	now, certificate := time.Now(), template(csr)
	certificate.SerialNumber, certificate.KeyUsage = serial(), x509.KeyUsageDigitalSignature
	certificate.NotBefore, certificate.NotAfter = now.Add(-time.Hour), now.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, certificate, id.ca, csr.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate for %s: %w", certificate.Subject.CommonName, err)
	}
	return encodeCert(der), nil
}

// ClientRequest makes a key for a user, and a request to sign a certificate for
// it: the key as PEM, the request as DER. See Client.
func ClientRequest(user string, groups []string) (request, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", user, err)
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: user, Organization: groups}}
	if request, err = x509.CreateCertificateRequest(rand.Reader, template, key); err != nil {
		return nil, nil, fmt.Errorf("ask for a certificate for %s: %w", user, err)
	}
	keyPEM, err = encodeKey(key)
	return request, keyPEM, err
}

// SignClient signs a ClientRequest. Whatever it asks for, the certificate is for
// a user and never for a server.
func (id *Identity) SignClient(request []byte) ([]byte, error) {
	return id.sign(request, func(csr *x509.CertificateRequest) *x509.Certificate {
		return &x509.Certificate{
			Subject:     pkix.Name{CommonName: csr.Subject.CommonName, Organization: csr.Subject.Organization},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
	})
}

// Replace keeps another certificate for the API server, with its key, on a node
// without the authority's key.
func (id *Identity) Replace(certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("replace the API server's certificate: %w", err)
	}
	if err := pair.Leaf.CheckSignatureFrom(id.ca); err != nil {
		return fmt.Errorf("replace the API server's certificate: it is not of this fleet's authority: %w", err)
	}
	// Both in one file: a crash leaves the old pair or the new one.
	return write(filepath.Join(id.dir, "server.pem"), slices.Concat(certificate, key))
}

// Install makes the files of a node that has joined: what is pinned, the API's
// authority without its key, and the server's certificate with its own.
func Install(dir string, pinned Fleet, ca, certificate, key []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the identity folder: %w", err)
	}
	raw, err := json.MarshalIndent(pinned, "", "  ")
	if err != nil {
		return err
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{"ca.crt", ca}, {"server.key", key}, {"server.crt", certificate}, {"fleet.json", raw}} {
		if err := write(filepath.Join(dir, file.name), file.data); err != nil {
			return err
		}
	}
	return nil
}
