package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/shoal-dev/shoal/runtime"
)

// pulls fetches images: each once at a time, however many pods wait for it.
type pulls struct {
	engine Images
	poke   func()
	// imported is closed once the archives that lay on this machine at the
	// start are imported: no registry is asked for what is in them.
	imported chan struct{}

	mu      sync.Mutex
	refs    map[string]*pull
	fetched map[fetchedKey]bool // pulled for this container's first start
	waiting map[fetchedKey]bool // a goroutine fetches for this container
}

type fetchedKey struct{ instance, container string }

// pull is the state of one image name.
type pull struct {
	running chan struct{} // closed at the end; nil while nothing runs
	failure runtime.Failure
	err     error
}

func newPulls(engine Images, poke func()) *pulls {
	return &pulls{engine: engine, poke: poke, imported: make(chan struct{}), refs: map[string]*pull{}, fetched: map[fetchedKey]bool{}, waiting: map[fetchedKey]bool{}}
}

// state returns the state of the image that a container needs to start. A
// restart uses the image that is there, whatever the policy: a registry that
// cannot be reached keeps nothing from healing.
func (p *pulls) state(ctx context.Context, instance string, c *corev1.Container, restart bool) runtime.Image {
	policy := c.ImagePullPolicy
	p.mu.Lock()
	own := p.refs[c.Image]
	var running bool
	var failure runtime.Failure
	if own != nil {
		running, failure = own.running != nil, own.failure
	}
	key := fetchedKey{instance, c.Name}
	ready := p.fetched[key]
	running = running || p.waiting[key]
	p.mu.Unlock()
	if policy != corev1.PullAlways || restart || ready {
		_, err := p.engine.Image(ctx, c.Image)
		switch {
		case err == nil:
			return runtime.Image{State: runtime.ImagePresent}
		case errors.Is(err, runtime.ErrUnavailable):
			return runtime.Image{State: runtime.ImagePulling} // not known: wait
		case !errors.Is(err, runtime.ErrNotFound):
			return runtime.Image{State: runtime.ImageFailed, Failure: imageFailure(c.Image, err, failure)}
		}
	}
	switch {
	case policy == corev1.PullNever:
		return runtime.Image{State: runtime.ImageFailed, Failure: runtime.Failure{
			Reason:  runtime.WaitingNeverPull,
			Message: fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image),
			Retry:   time.Now().Add(time.Hour), // an import pokes
		}}
	case running:
		return runtime.Image{State: runtime.ImagePulling}
	case failure.Failed():
		return runtime.Image{State: runtime.ImageFailed, Failure: failure}
	default:
		return runtime.Image{}
	}
}

// imageFailure is for images that are there and cannot be used, and for names
// that cannot be parsed.
func imageFailure(ref string, err error, before runtime.Failure) runtime.Failure {
	reason := runtime.WaitingImageError
	if strings.HasPrefix(err.Error(), "image name ") {
		reason = runtime.WaitingImageName
	}
	count := before.Count + 1
	return runtime.Failure{
		Reason: reason, Message: fmt.Sprintf("Failed to use image %q: %v", ref, err),
		Count: count, Retry: time.Now().Add(time.Minute),
	}
}

// enter reports whether nobody fetches for this container yet, and notes that
// the caller now does, until it calls leave.
func (p *pulls) enter(instance, container string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := fetchedKey{instance, container}
	if p.waiting[key] {
		return false
	}
	p.waiting[key] = true
	return true
}

func (p *pulls) leave(instance, container string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, fetchedKey{instance, container})
}

// pull fetches an image for a container, or waits for a fetch that runs. It
// returns how long that took.
func (p *pulls) pull(ctx context.Context, instance string, c *corev1.Container, credentials []runtime.Credential) (time.Duration, error) {
	begin := time.Now()
	p.mu.Lock()
	own := p.refs[c.Image]
	if own == nil {
		own = &pull{}
		p.refs[c.Image] = own
	}
	if running := own.running; running != nil {
		p.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if own.err == nil {
			p.fetched[fetchedKey{instance, c.Name}] = true
		}
		return time.Since(begin), own.err
	}
	own.running = make(chan struct{})
	p.mu.Unlock()

	err := p.fetch(ctx, c, credentials)

	p.mu.Lock()
	defer p.mu.Unlock()
	own.err = err
	if err == nil {
		own.failure = runtime.Failure{}
		p.fetched[fetchedKey{instance, c.Name}] = true
	} else {
		own.failure = pullFailure(c.Image, err, own.failure.Count+1)
	}
	close(own.running)
	own.running = nil
	if err == nil {
		delete(p.refs, c.Image)
	}
	return time.Since(begin), err
}

// fetch pulls an image, unless the first imports brought it.
func (p *pulls) fetch(ctx context.Context, c *corev1.Container, credentials []runtime.Credential) error {
	select {
	case <-p.imported:
	default:
		select {
		case <-p.imported:
		case <-ctx.Done():
			return ctx.Err()
		}
		if c.ImagePullPolicy != corev1.PullAlways {
			if _, err := p.engine.Image(ctx, c.Image); err == nil {
				return nil
			}
		}
	}
	_, err := p.engine.Pull(ctx, c.Image, credentials)
	return err
}

// pullFailure says what kept an image from being fetched: ErrImagePull the first
// time, ImagePullBackOff while it keeps failing. Both carry the true cause.
func pullFailure(ref string, err error, count int) runtime.Failure {
	f := runtime.Failure{
		Reason: runtime.WaitingImageError, Message: err.Error(), Count: count,
		Retry: time.Now().Add(runtime.Backoff(count)),
	}
	if count > 1 {
		f.Reason = runtime.WaitingImageBackOff
		f.Message = fmt.Sprintf("Back-off pulling image %q: ErrImagePull: %v", ref, err)
	}
	return f
}

// recheck has the next look at every failed image begin anew: images have
// changed on this machine.
func (p *pulls) recheck() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ref, own := range p.refs {
		if own.running != nil || !own.failure.Failed() {
			continue
		}
		if _, err := p.engine.Image(context.Background(), ref); err == nil {
			delete(p.refs, ref)
		}
	}
}

// forget drops what is known of an instance.
func (p *pulls) forget(instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.fetched {
		if k.instance == instance {
			delete(p.fetched, k)
		}
	}
}

// pullSecrets returns the credentials that a pod's imagePullSecrets hold. What
// cannot be read is left out: the registry will say what is missing.
func pullSecrets(d runtime.Desired, pod *corev1.Pod) []runtime.Credential {
	var out []runtime.Credential
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, found := d.Secrets[types.NamespacedName{Namespace: pod.Namespace, Name: ref.Name}]
		if !found {
			continue
		}
		data := runtime.SecretData(secret)
		var file struct {
			Auths map[string]dockerAuth `json:"auths"`
		}
		if json.Unmarshal(data[corev1.DockerConfigJsonKey], &file) == nil {
			out = append(out, credentials(file.Auths)...)
		}
		var old map[string]dockerAuth
		if json.Unmarshal(data[corev1.DockerConfigKey], &old) == nil {
			out = append(out, credentials(old)...)
		}
	}
	return out
}

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

func credentials(auths map[string]dockerAuth) []runtime.Credential {
	var out []runtime.Credential
	for host, a := range auths {
		c := runtime.Credential{Host: host, Username: a.Username, Password: a.Password}
		if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil && a.Auth != "" {
			if user, password, found := strings.Cut(string(raw), ":"); found {
				c.Username, c.Password = user, password
			}
		}
		if a.IdentityToken != "" {
			c.Username, c.Password = "", a.IdentityToken
		}
		out = append(out, c)
	}
	return out
}
