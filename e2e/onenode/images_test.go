//go:build e2e

package onenode

import (
	"testing"

	"github.com/shoal-dev/shoal/internal/images"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// serveImages serves a registry on loopback that answers for the registries of
// the corpus, and makes the machine pull from it. An image that cannot be built
// here is answered with a stand-in: a web server that listens on the ports its
// pods declare.
func (m *machine) serveImages() {
	m.t.Helper()
	host := testenv.Registry(m.t)
	hello := testenv.Program(m.t, "github.com/shoal-dev/shoal/internal/images/hello")
	push := func(ref string, spec images.Spec) {
		image, err := images.Build(spec)
		if err != nil {
			m.t.Fatal(err)
		}
		testenv.Push(m.t, host, ref, image)
	}
	redis := redisSpec(m.t)
	push("redis:e2e", redis)
	push("library/redis:7.2", redis)
	push("library/redis:alpine", redis)
	replica := redis
	// What the entrypoint of the replica images does.
	replica.Cmd = append(append([]string{}, redis.Cmd...), "--replicaof", "redis-master", "6379")
	push("google_samples/gb-redisslave:v1", replica)
	push("redis-slave:v2", replica)
	push("library/busybox:latest", images.Busybox())
	push("library/hello:1", images.Program(hello, "-version", "1"))
	push("library/hello:2", images.Program(hello, "-version", "2"))
	nginx, err := images.Nginx()
	if err != nil {
		m.t.Fatal(err)
	}
	push("library/nginx:latest", nginx)
	for ref, ports := range map[string]string{
		"google-samples/gb-frontend:v5": ":80", "google_samples/gb-frontend:v4": ":80", "guestbook:v3": ":3000",
	} {
		spec := images.Program(hello, "-listen", ports, "-version", ref)
		spec.User = ""
		push(ref, spec)
	}
	for ref, port := range sockShop {
		push(ref, standIn(hello, port))
	}
	m.registries = testenv.Mirrors(m.t, host, "docker.io", "registry.k8s.io", "gcr.io")
}

func redisSpec(t testing.TB) images.Spec {
	t.Helper()
	spec, err := images.Redis()
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// sockShop are the images of the sock shop and the ports that their pods
// declare.
var sockShop = map[string]string{
	"weaveworksdemos/carts:0.4.8": ":80", "weaveworksdemos/catalogue-db:0.3.0": ":3306", "weaveworksdemos/catalogue:0.3.5": ":80",
	"weaveworksdemos/front-end:0.3.12": ":8079", "weaveworksdemos/orders:0.4.7": ":80", "weaveworksdemos/payment:0.4.3": ":80",
	"weaveworksdemos/queue-master:0.3.1": ":80", "weaveworksdemos/shipping:0.4.8": ":80", "weaveworksdemos/user-db:0.3.0": ":27017",
	"weaveworksdemos/user:0.4.7": ":80", "library/mongo:latest": ":27017", "library/rabbitmq:3.6.8-management": ":5672,:15672",
	"kbudde/rabbitmq-exporter:latest": ":9090",
}

// standIn is a web server under every name by which a pod of the sock shop
// starts its program.
func standIn(hello, listen string) images.Spec {
	spec := images.Busybox()
	script := "#!/bin/sh\nexec /hello -listen " + listen + "\n"
	spec.Files["/hello"] = images.File{From: hello, Mode: 0o755}
	for _, name := range []string{"/usr/local/bin/java.sh", "/app", "/start"} {
		spec.Files[name] = images.File{Data: []byte(script), Mode: 0o755}
	}
	spec.Entrypoint = []string{"/start"}
	spec.Cmd = nil
	return spec
}
