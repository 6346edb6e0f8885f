package probe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/shoal-dev/shoal/runtime"
)

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		name             string
		success, failure int32
		passing          bool
		results          string // + and -
		want             string // after each: + passing, - not, ! failed
	}{
		{"defaults", 0, 0, false, "---+", "--!+"},
		{"one failure is forgiven", 1, 2, true, "-+-+", "++++"},
		{"two are not", 1, 2, true, "--+", "+!+"},
		{"readiness needs its successes", 3, 1, false, "++-+++", "--!--+"},
		{"failing goes on", 1, 1, true, "---", "!!!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			count := newCounter(&corev1.Probe{SuccessThreshold: c.success, FailureThreshold: c.failure}, c.passing)
			var got strings.Builder
			for _, r := range c.results {
				_, failed := count.observe(r == '+')
				switch {
				case failed:
					got.WriteByte('!')
				case count.passing:
					got.WriteByte('+')
				default:
					got.WriteByte('-')
				}
			}
			if got.String() != c.want {
				t.Errorf("got %s, want %s", got.String(), c.want)
			}
		})
	}
}

// fake answers exec probes.
type fake struct {
	mu     sync.Mutex
	code   map[string]int // by command
	asked  map[string]int
	change atomic.Int32
}

func (f *fake) exec(_ context.Context, _ string, command []string) (int, string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked[command[0]]++
	return f.code[command[0]], "", nil
}

func (f *fake) set(command string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.code[command] = code
}

func probing(command string, p corev1.Probe) *corev1.Probe {
	p.Exec = &corev1.ExecAction{Command: []string{command}}
	return &p
}

func newFake() (*fake, *Prober) {
	f := &fake{code: map[string]int{}, asked: map[string]int{}}
	return f, New(f.exec, func(string) { f.change.Add(1) }, func(Target, Kind, string) {})
}

// The life of a container with all three probes, in virtual time.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake()
		f.set("start", 1)
		ctx, cancel := context.WithCancel(t.Context())
		c := &corev1.Container{
			Name:           "app",
			StartupProbe:   probing("start", corev1.Probe{PeriodSeconds: 10, FailureThreshold: 30}),
			ReadinessProbe: probing("ready", corev1.Probe{PeriodSeconds: 5, FailureThreshold: 2}),
			LivenessProbe:  probing("live", corev1.Probe{PeriodSeconds: 10, FailureThreshold: 3}),
		}
		p.Watch(ctx, Target{Instance: "i", Container: c, ID: "c1", Started: time.Now()})
		state := func() runtime.Probes { synctest.Wait(); return p.State("i")["app"] }
		time.Sleep(29 * time.Second)
		if s := state(); s.Started || s.Ready || f.asked["ready"]+f.asked["live"] > 0 {
			t.Errorf("before the start: %+v, asked %v", s, f.asked)
		}
		f.set("start", 0)
		time.Sleep(10 * time.Second)
		if s := state(); !s.Started || !s.Ready || s.Unhealthy != "" {
			t.Errorf("started: %+v", s)
		}
		started := f.asked["start"]
		f.set("ready", 1)
		time.Sleep(5 * time.Second)
		if s := state(); !s.Ready {
			t.Error("one failed readiness probe counts already")
		}
		time.Sleep(6 * time.Second)
		if s := state(); s.Ready || s.Unhealthy != "" || !strings.HasPrefix(s.Message, "Readiness probe failed: ") {
			t.Errorf("not ready: %+v", s)
		}
		f.set("ready", 0)
		time.Sleep(5 * time.Second)
		if s := state(); !s.Ready || s.Message != "" {
			t.Errorf("ready again: %+v", s)
		}
		f.set("live", 1)
		time.Sleep(31 * time.Second)
		if s := state(); s.Unhealthy != "Liveness" || s.Ready {
			t.Errorf("dead: %+v", s)
		}
		if f.asked["start"] != started {
			t.Error("the startup probe went on after its success")
		}
		// The next attempt begins anew.
		f.set("live", 0)
		p.Watch(ctx, Target{Instance: "i", Container: c, ID: "c2", Attempt: 1, Started: time.Now()})
		time.Sleep(time.Second)
		if s := state(); s.Attempt != 1 || !s.Ready || s.Unhealthy != "" {
			t.Errorf("next attempt: %+v", s)
		}
		cancel()
		p.Wait()
	})
}

// A container that is ready soon is seen so soon, whatever its period.
func TestHaste(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake()
		f.set("ready", 1)
		ctx, cancel := context.WithCancel(t.Context())
		c := &corev1.Container{Name: "app", ReadinessProbe: probing("ready", corev1.Probe{PeriodSeconds: 60})}
		p.Watch(ctx, Target{Instance: "i", Container: c, Started: time.Now()})
		time.Sleep(300 * time.Millisecond)
		f.set("ready", 0)
		time.Sleep(300 * time.Millisecond)
		synctest.Wait()
		if !p.State("i")["app"].Ready {
			t.Error("it is not ready")
		}
		asked := f.asked["ready"]
		time.Sleep(59 * time.Second)
		if f.asked["ready"] > asked+1 {
			t.Errorf("asked %d times within a period", f.asked["ready"]-asked)
		}
		cancel()
		p.Wait()
	})
}

// An adopted container stays what it was until a probe says otherwise.
func TestAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, p := newFake()
		ctx, cancel := context.WithCancel(t.Context())
		c := &corev1.Container{
			Name: "app", StartupProbe: probing("start", corev1.Probe{}),
			ReadinessProbe: probing("ready", corev1.Probe{PeriodSeconds: 10, FailureThreshold: 1}),
		}
		f.set("ready", 1)
		p.Watch(ctx, Target{Instance: "i", Container: c, ID: "c1", Known: &runtime.Probes{Started: true, Ready: true}})
		synctest.Wait()
		if s := p.State("i")["app"]; !s.Ready || !s.Started {
			t.Errorf("adopted: %+v", s)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if s := p.State("i")["app"]; s.Ready || f.asked["start"] > 0 {
			t.Errorf("after a probe: %+v, %v", s, f.asked)
		}
		cancel()
		p.Wait()
	})
}

func at(t *testing.T, address string) *target {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &target{Target: Target{IP: host, Container: &corev1.Container{
		Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(number)}},
	}}}
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://example.invalid/", http.StatusFound)
		case "/ok":
			fmt.Fprint(w, r.URL.RawQuery)
		case "/host":
			if r.Host != "own.example" || r.Header.Get("X-A") != "b" {
				w.WriteHeader(http.StatusBadRequest)
			}
		case "/slow":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	tg := at(t, u.Host)
	p := &Prober{}
	for path, want := range map[string]string{
		"/ok?x=1": "", "ok": "", "/redirect": "", "/away": "", "/host": "", "/broken": "HTTP probe failed with statuscode: 503", "/slow": "deadline",
	} {
		get := &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []corev1.HTTPHeader{{Name: "X-A", Value: "b"}, {Name: "Host", Value: "own.example"}}}
		ok, message := p.once(t.Context(), tg, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: get}})
		if ok != (want == "") || !strings.Contains(message, want) {
			t.Errorf("%s: got %t, %q", path, ok, message)
		}
	}
}

func TestTCPAndGRPC(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	state := grpchealth.NewServer()
	state.SetServingStatus("bad", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(server, state)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	tg := at(t, listener.Addr().String())
	number := tg.Container.Ports[0].ContainerPort
	p, bad := &Prober{}, "bad"
	for _, c := range []struct {
		name    string
		handler corev1.ProbeHandler
		ok      bool
	}{
		{"tcp", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("web")}}, true},
		{"tcp unknown name", corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("nope")}}, false},
		{"grpc", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: number}}, true},
		{"grpc not serving", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: number, Service: &bad}}, false},
	} {
		if ok, message := p.once(t.Context(), tg, &corev1.Probe{ProbeHandler: c.handler}); ok != c.ok {
			t.Errorf("%s: got %t, %q", c.name, ok, message)
		}
	}
	server.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if ok, _ := p.once(t.Context(), tg, &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(number)}}}); ok {
		t.Error("a closed port was reached")
	}
}
