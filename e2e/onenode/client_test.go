//go:build e2e

package onenode

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// A client runs commands in a pod of the fleet.
type client struct {
	t   testing.TB
	dir string
}

// newClient adds the client's pod to a repository.
func newClient(t testing.TB, r *repo) *client {
	t.Helper()
	c := &client{t: t, dir: testenv.Dir(t)}
	r.write(map[string]string{"client.yaml": fmt.Sprintf(clientPod, c.dir)})
	return c
}

// run runs a script in the pod and returns what it prints, with its exit status
// in the last line.
func (c *client) run(script string) string {
	c.t.Helper()
	out := filepath.Join(c.dir, "out")
	_ = os.Remove(out) // of the last command
	part := filepath.Join(c.dir, "part")
	if err := os.WriteFile(part, []byte(script+"\n"), 0o644); err != nil {
		c.t.Fatal(err)
	}
	if err := os.Rename(part, filepath.Join(c.dir, "in")); err != nil {
		c.t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if raw, err := os.ReadFile(out); err == nil {
			return strings.TrimSpace(string(raw))
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the client pod did not run %q within 30 s", script)
		}
	}
}

// requests asks a URL, once it is answered, again and again until the function it returns is called,
// which fails the test when a single request has failed.
func (m *machine) requests(url string) (stop func(during string)) {
	m.eventually(15*time.Second, "a first request to "+url+" is answered", func() (bool, string) {
		_, err := get(url)
		return err == nil, fmt.Sprint(err)
	})
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan struct{})
	good, failures := 0, []string{}
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, err := get(url); err != nil {
				failures = append(failures, time.Now().Format("15:04:05.000")+" "+err.Error())
			} else {
				good++
			}
		}
	}()
	return func(during string) {
		m.t.Helper()
		cancel()
		<-done
		if len(failures) > 0 || good < 20 {
			m.t.Errorf("%d requests failed and %d succeeded during %s; the first failures:\n%s",
				len(failures), good, during, strings.Join(failures[:min(5, len(failures))], "\n"))
		}
	}
}
