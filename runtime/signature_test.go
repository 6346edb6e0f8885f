package runtime_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// signer makes signatures as cosign does.
type signer struct {
	public string
	sign   func(payload []byte) []byte
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{publicPEM(t, &key.PublicKey), func(payload []byte) []byte {
		sum := sha256.Sum256(payload)
		out, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return out
	}}
}

func newEdSigner(t *testing.T) signer {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{publicPEM(t, public), func(payload []byte) []byte { return ed25519.Sign(private, payload) }}
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	raw, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
}

func (s signer) of(kind, digest string) runtime.Signature {
	payload := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":"r.io/shop/web"},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`, digest, kind)
	return runtime.Signature{Payload: payload, Signature: s.sign(payload)}
}

func TestVerifySignatures(t *testing.T) {
	const kind, digest = "cosign container image signature", "sha256:1111"
	ann, bob, eve := newSigner(t), newEdSigner(t), newSigner(t)
	shop := api.ImagePolicy{Images: []string{"r.io/shop/*"}, Keys: []string{ann.public, bob.public}}
	all := api.ImagePolicy{Images: []string{"**"}, Keys: []string{eve.public}}
	forged := ann.of(kind, "sha256:2222")
	forged.Payload = ann.of(kind, digest).Payload
	turned := ann.of(kind, digest)
	turned.Payload = append([]byte(" "), turned.Payload...)
	for _, test := range []struct {
		name       string
		policies   []api.ImagePolicy
		signatures []runtime.Signature
		want       int // signatures that count; negative: none would do
	}{
		{"no policy asks for nothing", nil, nil, 0},
		{"no signature", []api.ImagePolicy{shop}, nil, -1},
		{"by one key", []api.ImagePolicy{shop}, []runtime.Signature{ann.of(kind, digest)}, 1},
		{"by the other", []api.ImagePolicy{shop}, []runtime.Signature{eve.of(kind, digest), bob.of(kind, digest)}, 1},
		{"by somebody else", []api.ImagePolicy{shop}, []runtime.Signature{eve.of(kind, digest)}, -1},
		{"of another image", []api.ImagePolicy{shop}, []runtime.Signature{ann.of(kind, "sha256:2222")}, -1},
		{"of another kind of thing", []api.ImagePolicy{shop}, []runtime.Signature{ann.of("atomic container signature", digest)}, -1},
		{"that was taken from another image", []api.ImagePolicy{shop}, []runtime.Signature{forged}, -1},
		{"with one byte more", []api.ImagePolicy{shop}, []runtime.Signature{turned}, -1},
		{"garbage", []api.ImagePolicy{shop}, []runtime.Signature{{Payload: []byte("{"), Signature: []byte("x")}, {}}, -1},
		{"two policies, one satisfied", []api.ImagePolicy{shop, all}, []runtime.Signature{ann.of(kind, digest)}, -1},
		{"two policies, both satisfied", []api.ImagePolicy{shop, all}, []runtime.Signature{ann.of(kind, digest), eve.of(kind, digest)}, 2},
	} {
		got, err := runtime.VerifySignatures(test.policies, digest, test.signatures)
		if len(got) != max(0, test.want) || errors.Is(err, runtime.ErrSignature) != (test.want < 0) {
			t.Errorf("%s: got %d, %v", test.name, len(got), err)
		}
	}
	if _, err := runtime.VerifySignatures([]api.ImagePolicy{shop}, "", []runtime.Signature{ann.of(kind, "")}); err == nil {
		t.Error("a signature of nothing satisfies for an image of which the digest is not known")
	}
	for name, want := range map[string]int{"r.io/shop/web:1": 2, "r.io/shop/web@" + digest: 2, "r.io:5000/shop/web": 1, "docker.io/library/redis:7": 1} {
		if got := runtime.PoliciesFor([]api.ImagePolicy{shop, all}, name); len(got) != want {
			t.Errorf("%s: got %d policies, want %d", name, len(got), want)
		}
	}
}
