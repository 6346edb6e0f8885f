package fencer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/runtime/fence"
	"github.com/shoal-dev/shoal/runtime/satellite"
)

// ClientConfig says where the fencer lives.
type ClientConfig struct {
	RunDir  string // of its socket; /run/shoal
	Program string // path of shoal-keeper
	Version string // of the program; a fencer of another one is replaced
}

// answerWithin is how long a fencer may take to answer. One that takes longer is
// stopped or starved: it is killed and another one takes its place.
const answerWithin = 700 * time.Millisecond

// startWithin is how long a new one may take.
const startWithin = 3 * time.Second

// Client is the daemon's end of the fencer. It starts the process when there is
// something to hold, tells it everything again when it was replaced, and ends it
// when nothing is held any more. It may be used concurrently.
type Client struct {
	cfg ClientConfig

	mu       sync.Mutex
	conn     *satellite.Conn // nil while there is none
	pods     map[string]fence.Pod
	lease    fence.Lease
	adopted  bool // it was looked for the fencer of an earlier daemon
	degraded []string
}

// NewClient returns a client. It starts nothing: a fencer that an earlier daemon
// has left is found by Held.
func NewClient(cfg ClientConfig) *Client {
	return &Client{cfg: cfg, pods: map[string]fence.Pod{}}
}

func (c *Client) socket() string { return filepath.Join(c.cfg.RunDir, "fencer.sock") }

// Hold fences a pod from now on. It must have succeeded before the pod's first
// container starts.
func (c *Client) Hold(ctx context.Context, p fence.Pod) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.request(ctx, Request{Verb: Hold, Pod: p}); err != nil {
		return fmt.Errorf("fence pod %s: %w", p.Instance, err)
	}
	c.pods[p.Instance] = p
	return nil
}

// Release fences a pod no more. The last one ends the process.
func (c *Client) Release(ctx context.Context, instance string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, instance)
	if c.conn == nil && c.connect() != nil {
		return nil // whoever is started next is not told of it
	}
	if _, err := c.request(ctx, Request{Verb: Release, Instance: instance}); err != nil {
		return fmt.Errorf("release pod %s from the fencer: %w", instance, err)
	}
	if len(c.pods) == 0 {
		return c.quit()
	}
	return nil
}

// Renew brings the lease and returns the instances that were ended for want of
// one before it came. It is also how a fencer that does not answer is found out:
// to be called twice a second at least. It does nothing while nothing is held.
func (c *Client) Renew(ctx context.Context, l fence.Lease) (fenced []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lease = c.lease.Newer(l)
	if len(c.pods) == 0 {
		return nil, nil
	}
	reply, err := c.request(ctx, Request{Verb: Renew})
	if err != nil {
		return nil, fmt.Errorf("renew the lease with the fencer: %w", err)
	}
	return reply.Fenced, nil
}

// Held returns the pods that are held, those of a fencer that an earlier daemon
// has left included, sorted by instance. A daemon must call it before it is heard
// of by its fleet: a lease that was handed over is then made an ordinary one.
func (c *Client) Held(ctx context.Context) ([]fence.Pod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.adopted = true }()
	if c.conn == nil {
		if c.connect() != nil && len(c.pods) == 0 {
			return nil, nil
		}
		c.hangUp()
		if err := c.ensure(ctx); err != nil {
			return nil, err
		}
	}
	out := make([]fence.Pod, 0, len(c.pods))
	for _, p := range c.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b fence.Pod) int { return strings.Compare(a.Instance, b.Instance) })
	return out, nil
}

// Degraded says what the machine does not permit the fencer, in whole sentences.
func (c *Client) Degraded() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.degraded
}

// PID returns the process ID of the fencer; 0 when there is none.
func (c *Client) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return 0
	}
	return c.conn.PID()
}

// ensure connects, starting a fencer where none of this version answers. What an
// older one holds is told to the new one. c.mu is held.
func (c *Client) ensure(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	if c.connect() == nil {
		ping, err := c.ask(Request{Verb: Ping})
		if err == nil {
			var list Reply
			if list, err = c.ask(Request{Verb: List}); err == nil {
				for _, p := range list.Pods {
					c.pods[p.Instance] = p
				}
				c.adopt(list.Lease)
			}
		}
		if err == nil && ping.Version == c.cfg.Version {
			c.degraded = ping.Degraded
			return c.replay()
		}
		if err == nil {
			_, err = c.ask(Request{Verb: Quit})
		}
		if err != nil {
			c.kill()
		}
		c.hangUp()
	}
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("start the fencer: %w", err)
	}
	return c.replay()
}

// adopt takes over the lease that an earlier daemon has left. A long one ends
// soon: once this daemon is heard of, the leader waits for no longer than for
// any other node. So this must be before it is heard of.
func (c *Client) adopt(l fence.Lease) {
	if soon := (fence.Lease{Sent: Now()}); !c.adopted && l.Ends() > soon.Ends() {
		l = soon
	}
	c.lease = c.lease.Newer(l)
}

// start runs a fencer and waits until it answers.
func (c *Client) start(ctx context.Context) error {
	command := []string{c.cfg.Program, "fence", "-socket", c.socket(), "-version", c.cfg.Version}
	return satellite.Start(ctx, startWithin, command, func() bool {
		if c.connect() != nil {
			return false
		}
		reply, err := c.ask(Request{Verb: Ping})
		if err != nil || reply.Version != c.cfg.Version {
			c.hangUp()
			return false
		}
		c.degraded = reply.Degraded
		return true
	})
}

func (c *Client) connect() (err error) {
	conn, err := satellite.Dial(c.socket(), answerWithin)
	if err == nil {
		c.conn = conn
	}
	return err
}

// kill kills a fencer that does not answer.
func (c *Client) kill() {
	if c.conn != nil {
		c.conn.Kill()
	}
}

func (c *Client) hangUp() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// replay tells a fencer everything that it has to hold.
func (c *Client) replay() error {
	for _, p := range c.pods {
		if _, err := c.ask(Request{Verb: Hold, Pod: p}); err != nil {
			c.hangUp()
			return err
		}
	}
	return nil
}

// ask sends one request over the connection. c.mu is held.
func (c *Client) ask(r Request) (Reply, error) {
	r.Lease = c.lease
	var reply Reply
	if err := c.conn.Ask(r, &reply); err != nil {
		return reply, err
	}
	if reply.Error != "" {
		return reply, satellite.Refusal(reply.Error)
	}
	return reply, nil
}

// request sends one request, to a new fencer if the old one is gone or does not
// answer. c.mu is held.
func (c *Client) request(ctx context.Context, r Request) (Reply, error) {
	for try := 0; ; try++ {
		if err := c.ensure(ctx); err != nil {
			return Reply{}, err
		}
		reply, err := c.ask(r)
		if _, said := errors.AsType[satellite.Refusal](err); err == nil || said {
			return reply, err
		}
		c.kill()
		c.hangUp()
		if try == 1 {
			return reply, err
		}
	}
}

func (c *Client) quit() error {
	_, err := c.ask(Request{Verb: Quit})
	c.hangUp()
	return err
}

// Stop ends the fencer of a run directory, if there is one. What it held runs on
// without a fence.
func Stop(runDir string) error {
	c := NewClient(ClientConfig{RunDir: runDir})
	if c.connect() != nil {
		return nil
	}
	if err := c.quit(); err != nil {
		return fmt.Errorf("end the fencer: %w", err)
	}
	return nil
}
