//go:build e2e

package fleet

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/shoal-dev/shoal/internal/images"
	"github.com/shoal-dev/shoal/internal/testenv"
)

// TestNothingButDisks: all daemons are killed at once, then all machines, while
// Git and the registry are away. What runs goes on under new daemons with the
// same processes; what ran when the machines died runs again, from their disks
// and the images that they have; what is exclusive never runs twice. When Git is
// back, commits are followed.
func TestNothingButDisks(t *testing.T) {
	w := prepare(t, 3)
	w.bridge("sw0")
	listener, err := net.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() }) // it may be closed
	w.registries = testenv.Mirrors(t, listener.Addr().String(), "registry.example.com")
	hello := testenv.Program(t, "github.com/shoal-dev/shoal/internal/images/hello")
	testenv.Push(t, listener.Addr().String(), "hello:1", testenv.Image(t, images.Program(hello, "-version", "1")))
	for range 3 {
		w.add()
	}
	w.settled(time.Minute)
	s, where := w.exclusive(t)
	w.write(map[string]string{"hello.yaml": strings.ReplaceAll(fmt.Sprintf(helloYAML, 3), "image: hello:1", "image: registry.example.com/hello:1")})
	w.commit("from a registry")
	pods := w.ready(w.nodes[2], "hello", 3, 60*time.Second)
	_, one := where()
	processes := w.processes("")

	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(w.repo, w.repo+".away"); err != nil {
		t.Fatal(err)
	}
	back := func() { _ = os.Rename(w.repo+".away", w.repo) } // it may be back
	defer back()

	for _, n := range w.nodes {
		n.stop(syscall.SIGKILL)
	}
	begin := time.Now()
	for _, n := range w.nodes {
		n.launch()
	}
	w.settled(20 * time.Second)
	for _, eyes := range w.nodes {
		if now := w.ready(eyes, "hello", 3, 20*time.Second); !maps.Equal(now, pods) {
			t.Errorf("other pods: %v, then %v", pods, now)
		}
	}
	t.Logf("all is as before %s after all daemons were started", time.Since(begin).Round(10*time.Millisecond))
	if now := w.processes(""); !maps.Equal(now, processes) {
		t.Fatalf("processes were\n%v\nand are\n%v", processes, now)
	}

	for _, n := range w.nodes {
		n.cable("")
		n.stop(syscall.SIGKILL)
	}
	for _, n := range w.nodes {
		n.die()
	}
	off := uptime(t)
	begin = time.Now()
	for _, n := range w.nodes {
		n.cable("sw0")
		n.launch()
	}
	w.settled(20 * time.Second)
	for _, eyes := range w.nodes {
		if now := w.ready(eyes, "hello", 3, 20*time.Second); !slices.Equal(nodesOf(now), nodesOf(pods)) {
			t.Errorf("the pods are elsewhere: %v, then %v", pods, now)
		}
		w.ready(eyes, "each", 3, 20*time.Second)
	}
	if now := w.processes("hello"); len(now) != 3 {
		t.Errorf("three pods are ready, and these run: %v", now)
	}
	t.Logf("all ordinary pods run %s after the power came back", time.Since(begin).Round(10*time.Millisecond))
	w.eventually(40*time.Second, "the exclusive pod runs", func() (bool, string) {
		beats, overlaps := s.beats()
		return beats[len(beats)-1].at > off, fmt.Sprint(one, overlaps)
	})
	t.Logf("the exclusive pod runs %s after the power came back", time.Since(begin).Round(10*time.Millisecond))
	where()
	s.check()

	back()
	w.write(map[string]string{"hello.yaml": strings.ReplaceAll(fmt.Sprintf(helloYAML, 4), "image: hello:1", "image: registry.example.com/hello:1")})
	w.follows(w.nodes, w.commit("Git is back"), 30*time.Second)
	w.ready(w.nodes[0], "hello", 4, 20*time.Second)
}
