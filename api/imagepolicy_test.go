package api_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/api"
)

func TestImagePolicyCovers(t *testing.T) {
	for _, test := range []struct {
		pattern, repository string
		want                bool
	}{
		{"docker.io/library/redis", "docker.io/library/redis", true},
		{"docker.io/library/redis", "docker.io/library/redis2", false},
		{"docker.io/library/redis", "evil.io/docker.io/library/redis", false},
		{"r.io/shop/*", "r.io/shop/web", true},
		{"r.io/shop/*", "r.io/shop/", true},
		{"r.io/shop/*", "r.io/shop/team/web", false},
		{"r.io/shop/**", "r.io/shop/team/web", true},
		{"r.io/*/web", "r.io/shop/web", true},
		{"r.io/*/web", "r.io/a/b/web", false},
		{"r.io/**/web", "r.io/a/b/web", true},
		{"*.r.io/w*b", "eu.r.io/web", true},
		{"*.r.io/w*b", "eu.r.io/weba", false},
		{"r.io:5000/*", "r.io:5000/web", true},
		{"**", "anything/at/all", true},
		{"**", "", true},
		{strings.Repeat("**a", 30), strings.Repeat("a", 200) + "b", false},
	} {
		if got := (api.ImagePolicy{Images: []string{"no.io/x", test.pattern}}).Covers(test.repository); got != test.want {
			t.Errorf("%q and %q: got %t", test.pattern, test.repository, got)
		}
	}
}

func TestCheckImagePattern(t *testing.T) {
	for pattern, good := range map[string]bool{
		"docker.io/library/*": true, "r.io:5000/shop/**": true, "localhost/x": true, "*.r.io/x": true, "**": true, "*/x": true,
		"redis": false, "library/redis": false, "": false, "r.io/": false, "r.io/x:1": false, "r.io/x@sha256:0": false, "r.io/a b": false, "*": false,
	} {
		if err := api.CheckImagePattern(pattern); (err == nil) != good {
			t.Errorf("%q: got %v", pattern, err)
		}
	}
}

func TestParseImageKey(t *testing.T) {
	encode := func(key any) string {
		raw, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: raw}))
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := encode(&ec.PublicKey)
	for _, test := range []struct{ name, text, want string }{
		{"ECDSA on P-256", good, ""},
		{"with space around", "\n" + good + "\n", ""},
		{"Ed25519", encode(ed), ""},
		{"another curve", encode(&other.PublicKey), "neither"},
		{"RSA", encode(&rsaKey.PublicKey), "neither"},
		{"two keys", good + good, "more than one"},
		{"nothing", "", "no public key in PEM"},
		{"a private key", strings.ReplaceAll(good, "PUBLIC", "PRIVATE"), "no public key in PEM"},
		{"no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"},
	} {
		_, err := api.ParseImageKey(test.text)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}
