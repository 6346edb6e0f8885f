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
}

// Identity is a fleet's identity, read from its folder.
type Identity struct {
	Fleet Fleet
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey
}

// Open reads the identity from dir, or makes it with the ranges of want when
// there is none yet. Other ranges than those the fleet was made with are an
// error: running pods have their addresses.
func Open(dir string, want Fleet) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the identity folder: %w", err)
	}
	id := &Identity{}
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
		if id.Fleet != want {
			return nil, fmt.Errorf("the fleet was made with other address ranges (%s): set them back, or run shoal reset to make a new fleet", path)
		}
	}
	return id, id.openCA(dir)
}

// Read reads the identity from dir, and makes nothing when there is none.
func Read(dir string) (*Identity, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "fleet.json"))
	if err != nil {
		return nil, fmt.Errorf("read the fleet's identity: %w", err)
	}
	var fleet Fleet
	if err := json.Unmarshal(raw, &fleet); err != nil {
		return nil, fmt.Errorf("read the fleet's identity from %s: %w", dir, err)
	}
	return Open(dir, fleet)
}

func (id *Identity) openCA(dir string) error {
	certPath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	certPEM, certErr := os.ReadFile(certPath)
	keyPEM, keyErr := os.ReadFile(keyPath)
	if errors.Is(certErr, fs.ErrNotExist) || errors.Is(keyErr, fs.ErrNotExist) {
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
func (id *Identity) Server(names []string, ips []net.IP) (tls.Certificate, error) {
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
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", template.Subject.CommonName, err)
	}
	now := time.Now()
	template.SerialNumber, template.KeyUsage = serial(), x509.KeyUsageDigitalSignature
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, id.ca, key.Public(), id.key)
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
