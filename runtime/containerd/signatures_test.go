package containerd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// newKey returns a key, and its public half as policies have it.
func newKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
}

// sign pushes a signature of an image, laid out as cosign does.
func (m *mirror) sign(t *testing.T, repository string, image v1.Image, key *ecdsa.PrivateKey) {
	t.Helper()
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"registry.example.com/%s"},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":null}`, repository, digest)
	sum := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	list, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:       static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	m.push(t, repository+":"+strings.Replace(digest.String(), ":", "-", 1)+".sig", list)
}

// What a policy covers is pulled only with a signature, and keeps it: no registry is
// asked again for it, and other machines get it along.
func TestPullSigned(t *testing.T) {
	m := newMirror(t)
	key, public := newKey(t)
	stranger, _ := newKey(t)
	good, bad, wrong := large(t), large(t), large(t)
	m.push(t, "shop/good:1", good)
	m.push(t, "shop/bad:1", bad)
	m.push(t, "shop/wrong:1", wrong)
	m.sign(t, "shop/good", good, key)
	m.sign(t, "shop/wrong", wrong, stranger)
	other, _ := newEngine(t, func(c *containerd.Config) { c.HostsDir = m.hosts })
	own, _ := newEngine(t, func(c *containerd.Config) {
		c.HostsDir, c.Peers = m.hosts, &neighbor{engine: other, asked: map[string]int{}}
	})
	policies := []api.ImagePolicy{{Images: []string{"registry.example.com/shop/*"}, Keys: []string{public}}}
	ann := []runtime.Credential{{Host: m.host(), Username: "ann", Password: "secret"}}
	pull := func(e *containerd.Engine, name string, policies []api.ImagePolicy) (runtime.Pulled, error) {
		return e.Pull(t.Context(), runtime.Pull{Ref: "registry.example.com/shop/" + name + ":1", Credentials: ann, Policies: policies})
	}
	for _, name := range []string{"bad", "wrong"} {
		if _, err := pull(own, name, policies); !errors.Is(err, runtime.ErrSignature) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := own.Image(t.Context(), "registry.example.com/shop/"+name+":1"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%s is there: %v", name, err)
		}
	}
	got, err := pull(other, "good", policies)
	if err != nil || len(got.Signatures) != 1 {
		t.Fatalf("the good one: got %+v, %v", got, err)
	}
	_, digest, _ := strings.Cut(got.ID, "@")
	if _, err := runtime.VerifySignatures(policies, digest, got.Signatures); err != nil {
		t.Errorf("the signatures that were kept: %v", err)
	}
	// One that was fetched before there was a policy is found to be signed, or not.
	if before, err := pull(own, "good", nil); err != nil || len(before.Signatures) > 0 {
		t.Fatalf("without a policy: got %+v, %v", before, err)
	}
	if after, err := pull(own, "good", policies); err != nil || len(after.Signatures) != 1 {
		t.Errorf("with a policy: got %+v, %v", after, err)
	}
	if _, err := pull(other, "bad", nil); err != nil {
		t.Fatal(err)
	}

	m.Close()
	forget(t, own, "registry.example.com/shop/good:1")
	if away, err := pull(own, "good", policies); err != nil || away.ResolvedBy != "n2" || len(away.Signatures) != 1 {
		t.Errorf("from another machine, without the registry: got %+v, %v", away, err)
	}
	if _, err := pull(own, "bad", policies); !errors.Is(err, runtime.ErrSignature) {
		t.Errorf("what another machine has without a signature: got %v", err)
	}
}
