package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// pulls fetches images: each once at a time, however many pods wait for it.
type pulls struct {
	engine Images
	gate   *gate
	poke   func(instance string)
	// imported is closed once the archives that lay on this machine at the
	// start are imported: no registry is asked for what is in them.
	imported chan struct{}

	mu      sync.Mutex
	refs    map[pullKey]*pull
	fetched map[fetchedKey]bool // pulled for this container's first start
	waiting map[fetchedKey]bool // a goroutine fetches for this container
}

type fetchedKey struct{ instance, container string }

// pullKey is an image and what opens its registry: a pod is never told what others
// were answered to their credentials.
// Nor does what was answered under other policies count.
type pullKey struct{ ref, credentials, policies string }

// pull is the state of one image name.
type pull struct {
	running  chan struct{} // closed at the end; nil while nothing runs
	ticket   *ticket       // while it runs
	progress runtime.Progress
	wanted   bool      // a pod waits for it
	told     time.Time // when pods were last poked for its progress
	failure  runtime.Failure
	err      error
}

// tellProgress is how often pods say how far a pull is.
const tellProgress = 5 * time.Second

func newPulls(engine Images, gate *gate, poke func(instance string)) *pulls {
	return &pulls{
		engine: engine, gate: gate, poke: poke, imported: make(chan struct{}),
		refs: map[pullKey]*pull{}, fetched: map[fetchedKey]bool{}, waiting: map[fetchedKey]bool{},
	}
}

// wish is the image of a container of a pod, and what opens its registry.
type wish struct {
	instance    string
	container   *corev1.Container
	credentials []runtime.Credential
	policies    []api.ImagePolicy // that regard the image
}

// newWish returns the wish of a container. credentials are its pod's.
func newWish(d runtime.Desired, instance string, c *corev1.Container, credentials []runtime.Credential) wish {
	return wish{instance, c, credentials, runtime.PoliciesFor(d.ImagePolicies, fullName(c.Image))}
}

func (w wish) key() pullKey {
	policies := ""
	if len(w.policies) > 0 {
		policies = api.SafeHash(fmt.Sprint(w.policies), 12)
	}
	return pullKey{w.container.Image, runtime.CredentialsKey(w.credentials), policies}
}

// may reports whether the pod may have an image that is on this machine, without a
// word from the registry.
func (w wish) may(info runtime.ImageInfo) error {
	if !runtime.MayUse(info.Access, w.credentials) {
		return errors.New("does not have the proper credentials to access the image")
	}
	_, digest, _ := strings.Cut(info.ID, "@")
	_, err := runtime.VerifySignatures(w.policies, digest, info.Signatures)
	return err
}

func (w wish) fetched() fetchedKey { return fetchedKey{w.instance, w.container.Name} }

// state returns the state of the image that a container needs to start. A
// restart uses the image that is there, whatever the policy: a registry that
// cannot be reached keeps nothing from healing.
func (p *pulls) state(ctx context.Context, w wish, restart bool) runtime.Image {
	policy, ref := w.container.ImagePullPolicy, w.container.Image
	under, ready := p.look(w)
	if policy != corev1.PullAlways || restart || ready {
		info, err := p.engine.Image(ctx, ref)
		var may error
		if err == nil && !restart && !ready {
			may = w.may(info)
		}
		switch {
		case err == nil && may == nil:
			return runtime.Image{State: runtime.ImagePresent}
		case err == nil && policy == corev1.PullNever:
			out := never(fmt.Sprintf("Container image %q is present with pull policy of Never but %v", ref, may))
			if errors.Is(may, runtime.ErrSignature) {
				out.Failure.Reason = runtime.WaitingSignature
			}
			return out
		case err == nil: // it is there for others; the registry says whether it is for this pod
		case errors.Is(err, runtime.ErrUnavailable):
			return runtime.Image{State: runtime.ImagePulling} // not known: wait
		case !errors.Is(err, runtime.ErrNotFound):
			return runtime.Image{State: runtime.ImageFailed, Failure: imageFailure(ref, err, under.Failure)}
		}
	}
	switch {
	case policy == corev1.PullNever:
		return never(fmt.Sprintf("Container image %q is not present with pull policy of Never", ref))
	case under.State != runtime.ImageAbsent:
		return under
	case under.Failure.Failed():
		under.State = runtime.ImageFailed
		return under
	default:
		return runtime.Image{}
	}
}

// never is the state of an image that is not to be fetched.
func never(message string) runtime.Image {
	return runtime.Image{State: runtime.ImageFailed, Failure: runtime.Failure{
		Reason: runtime.WaitingNeverPull, Message: message,
		Retry: time.Now().Add(time.Hour), // an import pokes
	}}
}

// look returns what is known of the pull for a container, and whether its image
// was pulled for it already.
func (p *pulls) look(w wish) (under runtime.Image, ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	own := p.refs[w.key()]
	if own != nil {
		under.Failure = own.failure
	}
	if own != nil && own.running != nil {
		under = runtime.Image{State: runtime.ImagePulling, Ref: w.container.Image, Queued: own.ticket.waits(), Progress: own.progress}
	} else if p.waiting[w.fetched()] {
		under = runtime.Image{State: runtime.ImagePulling}
	}
	return under, p.fetched[w.fetched()]
}

// imageFailure is for images that are there and cannot be used, and for names
// that cannot be parsed.
func imageFailure(ref string, err error, before runtime.Failure) runtime.Failure {
	reason, message := runtime.WaitingImageError, fmt.Sprintf("Failed to use image %q: %v", ref, err)
	if rest, bad := strings.CutPrefix(err.Error(), "image name "); bad {
		reason, message = runtime.WaitingImageName, "Failed to apply default image tag: couldn't parse image name "+rest
	}
	count := before.Count + 1
	return runtime.Failure{
		Reason: reason, Message: message,
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

// took is how long a pull lasted, with and without waiting for its turn.
type took struct{ all, pulling time.Duration }

// pull fetches an image for a container, or waits for a fetch that runs. urgent
// says that a pod waits for it; without an instance nobody is remembered to have
// it.
func (p *pulls) pull(ctx context.Context, w wish, urgent bool) (runtime.Pulled, took, error) {
	begin := time.Now()
	p.mu.Lock()
	own := p.refs[w.key()]
	if own == nil {
		own = &pull{}
		p.refs[w.key()] = own
	}
	if running := own.running; running != nil {
		if urgent {
			own.wanted = true
			p.gate.hurry(own.ticket)
		}
		p.mu.Unlock()
		return p.join(ctx, w, own, running)
	}
	own.running, own.ticket, own.wanted = make(chan struct{}), p.gate.queueUp(urgent), urgent
	p.mu.Unlock()

	info, pulling, err := p.fetch(ctx, w, own)

	p.mu.Lock()
	defer p.mu.Unlock()
	own.err = err
	if err == nil {
		own.failure = runtime.Failure{}
	} else {
		own.failure = pullFailure(w.container.Image, err, own.failure.Count+1)
	}
	close(own.running)
	own.running, own.ticket, own.progress = nil, nil, runtime.Progress{}
	if err == nil && w.instance != "" {
		p.fetched[w.fetched()] = true
	}
	if err == nil || !own.wanted { // a pod that comes need not wait for what nobody wanted
		delete(p.refs, w.key())
	}
	return info, took{time.Since(begin), pulling}, err
}

// join waits for a fetch that another container began.
func (p *pulls) join(ctx context.Context, w wish, own *pull, running <-chan struct{}) (runtime.Pulled, took, error) {
	begin := time.Now()
	select {
	case <-running:
	case <-ctx.Done():
		return runtime.Pulled{}, took{}, ctx.Err()
	}
	p.mu.Lock()
	err := own.err
	if err == nil {
		p.fetched[w.fetched()] = true
	}
	p.mu.Unlock()
	if err != nil {
		return runtime.Pulled{}, took{}, err
	}
	info, err := p.engine.Image(ctx, w.container.Image)
	return runtime.Pulled{ImageInfo: info}, took{time.Since(begin), time.Since(begin)}, err
}

// fetch pulls an image when it is its turn, unless the first imports brought it.
func (p *pulls) fetch(ctx context.Context, w wish, own *pull) (runtime.Pulled, time.Duration, error) {
	leave, err := p.gate.pass(ctx, own.ticket)
	if err != nil {
		return runtime.Pulled{}, 0, err
	}
	defer leave()
	begin := time.Now()
	select {
	case <-p.imported:
	default:
		select {
		case <-p.imported:
		case <-ctx.Done():
			return runtime.Pulled{}, 0, ctx.Err()
		}
		if w.container.ImagePullPolicy != corev1.PullAlways {
			if info, err := p.engine.Image(ctx, w.container.Image); err == nil && w.may(info) == nil {
				return runtime.Pulled{ImageInfo: info}, 0, nil
			}
		}
	}
	info, err := p.engine.Pull(ctx, runtime.Pull{
		Ref: w.container.Image, Credentials: w.credentials, Policies: w.policies, Progress: func(at runtime.Progress) { p.note(own, at) },
	})
	return info, time.Since(begin), err
}

// note takes in how far a pull is, and pokes the pods that wait for images now and
// then.
func (p *pulls) note(own *pull, at runtime.Progress) {
	p.mu.Lock()
	own.progress = at
	var poked []string
	if time.Since(own.told) >= tellProgress {
		own.told = time.Now()
		for key := range p.waiting {
			poked = append(poked, key.instance)
		}
	}
	p.mu.Unlock()
	for _, instance := range poked {
		p.poke(instance)
	}
}

// pullFailure says what kept an image from being fetched: ErrImagePull the first
// time, ImagePullBackOff while it keeps failing. Both carry the true cause.
func pullFailure(ref string, err error, count int) runtime.Failure {
	f := runtime.Failure{
		Reason: runtime.WaitingImageError, Message: err.Error(), Count: count,
		Retry: time.Now().Add(runtime.Backoff(count)),
	}
	switch {
	case errors.Is(err, runtime.ErrSignature):
		f.Reason = runtime.WaitingSignature
		f.Message = fmt.Sprintf("image pull failed for %s because the signature validation failed: %v", ref, err)
	case count > 1:
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
	for key, own := range p.refs {
		if own.running != nil || !own.failure.Failed() {
			continue
		}
		if _, err := p.engine.Image(context.Background(), key.ref); err == nil {
			delete(p.refs, key)
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
	for key, own := range p.refs {
		if own.running == nil && time.Since(own.failure.Retry) > time.Hour {
			delete(p.refs, key) // nobody has tried again
		}
	}
}
