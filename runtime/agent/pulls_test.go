package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// store holds images, and fetches others for as long as the test says.
type store struct {
	mu     sync.Mutex
	held   map[string]bool
	access map[string][]string
	asked  []string
	answer func(pull runtime.Pull) error
}

func (s *store) Image(_ context.Context, ref string) (runtime.ImageInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held[ref] {
		return runtime.ImageInfo{}, runtime.ErrNotFound
	}
	return runtime.ImageInfo{Names: []string{ref}, Access: s.access[ref]}, nil
}

func (s *store) Pull(ctx context.Context, pull runtime.Pull) (runtime.Pulled, error) {
	s.mu.Lock()
	s.asked = append(s.asked, pull.Ref)
	s.mu.Unlock()
	if err := s.answer(pull); err != nil {
		return runtime.Pulled{}, err
	}
	s.mu.Lock()
	s.held[pull.Ref] = true
	s.access[pull.Ref] = runtime.Grant(s.access[pull.Ref], pull.Credentials)
	s.mu.Unlock()
	info, err := s.Image(ctx, pull.Ref)
	return runtime.Pulled{ImageInfo: info}, err
}

func (s *store) Import(context.Context, io.Reader) ([]string, error) { return nil, nil }

func testPulls(answer func(runtime.Pull) error) (*pulls, *store) {
	s := &store{held: map[string]bool{}, access: map[string][]string{}, answer: answer}
	p := newPulls(s, newGate(1, 0, 0), func(string) {})
	close(p.imported)
	return p, s
}

func wants(instance, ref string, credentials ...runtime.Credential) wish {
	return wish{instance, &corev1.Container{Name: "c", Image: ref, ImagePullPolicy: corev1.PullIfNotPresent}, credentials, nil}
}

// While an image is fetched a pod says how far it is, or that others come first,
// and whoever waits is poked every five seconds.
func TestPullsTellProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _ := testPulls(func(pull runtime.Pull) error {
			for i := range int64(10) {
				time.Sleep(time.Second)
				pull.Progress(runtime.Progress{Done: i << 20, Total: 20 << 20})
			}
			return nil
		})
		var pokes []string
		p.poke = func(instance string) { pokes = append(pokes, instance) }
		first, second := wants("one", "a:1"), wants("two", "b:1")
		var wg sync.WaitGroup
		for _, w := range []wish{first, second} {
			p.enter(w.instance, "c")
			wg.Go(func() {
				if _, _, err := p.pull(t.Context(), w, true); err != nil {
					t.Error(err)
				}
				p.leave(w.instance, "c")
			})
			synctest.Wait()
		}
		time.Sleep(3500 * time.Millisecond)
		synctest.Wait()
		if got := p.state(t.Context(), first, false); got.State != runtime.ImagePulling || got.Queued || got.Progress.String() != "2.0 MiB of 20.0 MiB" {
			t.Errorf("the first: got %+v", got)
		}
		if got := p.state(t.Context(), second, false); got.State != runtime.ImagePulling || !got.Queued {
			t.Errorf("the second: got %+v", got)
		}
		time.Sleep(4 * time.Second)
		if got := slices.Sorted(slices.Values(pokes)); !slices.Equal(got, []string{"one", "one", "two", "two"}) {
			t.Errorf("after 7.5 s these were poked: %q", got)
		}
		wg.Wait()
		for _, w := range []wish{first, second} {
			if got := p.state(t.Context(), w, false); got.State != runtime.ImagePresent {
				t.Errorf("in the end: got %+v", got)
			}
		}
	})
}

// What others were answered to their credentials is no answer to a pod's own: not
// a refusal, and not an image that is being fetched.
func TestPullsKeepCredentialsApart(t *testing.T) {
	p, s := testPulls(func(pull runtime.Pull) error {
		if len(pull.Credentials) == 0 {
			return errors.New("401 Unauthorized")
		}
		return nil
	})
	none, some := wants("one", "a:1"), wants("two", "a:1", runtime.Credential{Host: "r", Username: "u", Password: "p"})
	if _, _, err := p.pull(t.Context(), none, true); err == nil {
		t.Fatal("a pull without credentials succeeded")
	}
	got := p.state(t.Context(), none, false)
	if got.State != runtime.ImageFailed || got.Failure.Reason != runtime.WaitingImageError || got.Failure.Message != "401 Unauthorized" {
		t.Errorf("without credentials: got %+v", got)
	}
	if got := p.state(t.Context(), some, false); got.State != runtime.ImageAbsent {
		t.Errorf("with credentials, before anybody asked: got %+v", got)
	}
	if _, _, err := p.pull(t.Context(), some, true); err != nil {
		t.Fatal(err)
	}
	// It is there now, and not for everybody, unless a pod has run from it before.
	for _, test := range []struct {
		w       wish
		restart bool
		want    runtime.ImageState
	}{
		{some, false, runtime.ImagePresent},
		{wants("three", "a:1", some.credentials...), false, runtime.ImagePresent},
		{wants("four", "a:1"), false, runtime.ImageFailed},
		{wants("four", "a:1"), true, runtime.ImagePresent},
		{none, false, runtime.ImageFailed},
	} {
		if got := p.state(t.Context(), test.w, test.restart); got.State != test.want {
			t.Errorf("%+v: got %+v", test.w, got)
		}
	}
	nobody := wants("four", "a:1")
	nobody.container.ImagePullPolicy = corev1.PullNever
	if got := p.state(t.Context(), nobody, false); got.Failure.Reason != runtime.WaitingNeverPull || !strings.Contains(got.Failure.Message, "proper credentials") {
		t.Errorf("with the policy Never: got %+v", got)
	}
	if _, _, err := p.pull(t.Context(), none, true); err == nil || len(s.asked) != 3 {
		t.Errorf("asked %q: %v", s.asked, err)
	}
	if got := p.state(t.Context(), wants("three", "x:1"), false); got.State != runtime.ImageAbsent {
		t.Errorf("another image: got %+v", got)
	}
	if f := pullFailure("a:1", errors.New("401 Unauthorized"), 2); f.Reason != runtime.WaitingImageBackOff || !strings.Contains(f.Message, `Back-off pulling image "a:1"`) {
		t.Errorf("the second failure in a row: got %+v", f)
	}
}

// A pull that nobody waits for goes after those of pods, until a pod wants it.
func TestPullsHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := testPulls(func(runtime.Pull) error { time.Sleep(time.Second); return nil })
		var wg sync.WaitGroup
		begin := func(w wish, urgent bool) {
			wg.Go(func() {
				if _, _, err := p.pull(t.Context(), w, urgent); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		begin(wants("", "now"), true)
		begin(wants("", "ahead1"), false)
		begin(wants("", "ahead2"), false)
		begin(wants("", "pod"), true)
		begin(wants("one", "ahead2"), true)
		wg.Wait()
		if want := []string{"now", "pod", "ahead2", "ahead1"}; !slices.Equal(s.asked, want) {
			t.Errorf("asked for %q, want %q", s.asked, want)
		}
	})
}

// What a policy covers is used when it is signed, whatever is there already; why
// it is not is said in kubelet's words, and another policy is another question.
func TestPullsAskForSignatures(t *testing.T) {
	p, s := testPulls(func(pull runtime.Pull) error {
		if len(pull.Policies) > 0 {
			return fmt.Errorf("pull: %w: no key has signed", runtime.ErrSignature)
		}
		return nil
	})
	d := runtime.Desired{ImagePolicies: []api.ImagePolicy{{Images: []string{"r.io/shop/*"}, Keys: []string{"key"}}}}
	container := func(ref string) *corev1.Container {
		return &corev1.Container{Name: "c", Image: ref, ImagePullPolicy: corev1.PullIfNotPresent}
	}
	free, bound := newWish(d, "one", container("r.io/other/web:1"), nil), newWish(d, "two", container("r.io/shop/web:1"), nil)
	for _, w := range []wish{free, bound} {
		s.held[w.container.Image] = true
	}
	if got := p.state(t.Context(), free, false); got.State != runtime.ImagePresent {
		t.Errorf("what no policy covers: got %+v", got)
	}
	if got := p.state(t.Context(), bound, false); got.State != runtime.ImageAbsent {
		t.Errorf("what is there without a signature: got %+v", got)
	}
	if got := p.state(t.Context(), bound, true); got.State != runtime.ImagePresent {
		t.Errorf("a restart: got %+v", got)
	}
	for range 2 {
		if _, _, err := p.pull(t.Context(), bound, true); !errors.Is(err, runtime.ErrSignature) {
			t.Fatalf("got %v", err)
		}
		got := p.state(t.Context(), bound, false)
		if got.State != runtime.ImageFailed || got.Failure.Reason != "SignatureValidationFailed" || !strings.HasPrefix(got.Failure.Message, "image pull failed for r.io/shop/web:1 because the signature validation failed") {
			t.Errorf("got %+v", got)
		}
	}
	lifted := newWish(runtime.Desired{}, "two", bound.container, nil)
	if got := p.state(t.Context(), lifted, false); got.State != runtime.ImagePresent {
		t.Errorf("without the policy: got %+v", got)
	}
	bound.container.ImagePullPolicy = corev1.PullNever
	if got := p.state(t.Context(), bound, false); got.State != runtime.ImageFailed || got.Failure.Reason != "SignatureValidationFailed" {
		t.Errorf("with the policy Never: got %+v", got)
	}
}
