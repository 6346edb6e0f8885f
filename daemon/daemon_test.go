package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/viper"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/shoal-dev/shoal/api"
)

func TestCheckpoint(t *testing.T) {
	path := filepath.Join(t.TempDir(), "decided.json")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	want := decided{
		Assigned: api.AssignmentSet{Leader: "n1", Pods: []api.Assignment{{Pod: api.Pod{Instance: "i"}, Node: "n1", Created: at}}},
		Facts:    api.Facts{Seq: 7, Created: map[string]time.Time{"Pod ns/a": at}},
	}
	c := &checkpoint{path: path}
	if got, err := c.load(); err != nil || got.Assigned.Known() {
		t.Fatalf("a missing file loads as %+v, %v", got, err)
	}
	if err := c.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := (&checkpoint{path: path}).load()
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("loaded (-saved +loaded): %v\n%s", err, diff)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"a flipped bit": append(append([]byte{}, raw[:len(raw)-3]...), raw[len(raw)-3]^1, raw[len(raw)-2], raw[len(raw)-1]),
		"cut short":     raw[:len(raw)/2], "empty": {}, "no checksum": raw[65:],
	} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := (&checkpoint{path: path}).load()
		if err == nil || got.Assigned.Known() {
			t.Errorf("%s: loaded %+v, %v; want nothing and an error", name, got, err)
		}
		if _, err := os.Stat(path + ".damaged"); err != nil {
			t.Errorf("%s: the damaged file is not kept: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	write := func(text string) string {
		file := filepath.Join(t.TempDir(), "shoal.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	t.Run("file, environment and flag", func(t *testing.T) {
		t.Setenv("SHOAL_REPOSITORY_URL", "/from/environment")
		t.Setenv("SHOAL_NODE", "n7")
		v := viper.New()
		v.Set("repository.poll", "1m") // as a flag does
		cfg, err := LoadConfig(v, write("repository: {url: /from/file, path: apps, poll: 5s}\n"))
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(cfg.Node, cfg.Repository.URL, cfg.Repository.Path, cfg.Repository.Poll, cfg.Network.DNS)
		if want := "n7/from/environmentapps1m0s10.96.0.10"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
	})
	bad := []struct{ text, want string }{
		{"repositry: {url: /x}\n", "repositry"},
		{"repository: {url: /x, poll: soon}\n", "poll"},
		{"repository: [", "shoal.yaml"},
		{"node: Not A Name\nrepository: {url: /x}\n", "node:"},
		{"repository: {url: ''}\n", "repository.url"},
		{"repository: {url: 'https://me:secret@example.com/x'}\n", "repository.passwordFile"},
		{"repository: {url: /x, poll: 1ms}\n", "repository.poll"},
		{"state: relative\nrepository: {url: /x}\n", "state:"},
		{"repository: {url: /x}\nnetwork: {podCIDR: 10.64.0.1/24}\n", "network.podCIDR"},
		{"repository: {url: /x}\nnetwork: {podCIDR: 10.200.0.0/24}\n", "not inside"},
		{"repository: {url: /x}\nnetwork: {dns: 10.97.300.1}\n", "network.dns"},
		{"repository: {url: /x}\nlog: {level: loud}\n", "log.level"},
		{"repository: {url: /x}\nlog: {format: xml}\n", "log.format"},
		{"repository: {url: /x}\napi: {listen: here}\n", "api.listen"},
	}
	for _, tt := range bad {
		t.Run(tt.want, func(t *testing.T) {
			cfg, err := LoadConfig(viper.New(), write(tt.text))
			if err == nil {
				err = cfg.Validate()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret@") {
				t.Errorf("%q: got %v, want an error with %q and no secret in it", tt.text, err, tt.want)
			}
		})
	}
	if _, err := LoadConfig(viper.New(), "/no/such/file"); err == nil {
		t.Error("a named file that is missing is no error")
	}
}

func TestEvents(t *testing.T) {
	changes := 0
	e := newEvents("n1", func() { changes++ })
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	event := api.Event{
		Time: at, Type: corev1.EventTypeWarning, Reason: "BackOff", Message: "again", Source: "runtime",
		Regards: corev1.ObjectReference{Kind: "Pod", Namespace: "ns", Name: "a"},
	}
	for i := range 3 {
		event.Time = at.Add(time.Duration(i) * time.Minute)
		e.record(event)
	}
	got := e.list()
	if len(got) != 1 || got[0].Count != 3 || !got[0].LastTimestamp.Time.Equal(at.Add(2*time.Minute)) || !got[0].FirstTimestamp.Time.Equal(at) {
		t.Errorf("three times the same is %+v", got)
	}
	if changes != 3 {
		t.Errorf("%d changes were told, want 3", changes)
	}
	event.Message, event.Time = "another", at.Add(2*time.Hour)
	e.record(event)
	if got := e.list(); len(got) != 1 || got[0].Message != "another" {
		t.Errorf("after two hours there is %+v", got)
	}
	for i := range maxEvents + 50 {
		event.Message = fmt.Sprint(i)
		event.Time = event.Time.Add(time.Millisecond)
		e.record(event)
	}
	if got := e.list(); len(got) != maxEvents || got[len(got)-1].Message != fmt.Sprint(maxEvents+49) {
		t.Errorf("%d events are kept, the last is %q", len(got), got[len(got)-1].Message)
	}
}

// TestWhere: whatever the API shows leads to the file in which it is decided.
func TestWhere(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "ns", Name: "web"}
	deployment := api.Object{
		GVK: schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, Value: &appsv1.Deployment{ObjectMeta: meta},
		Source: api.Source{File: "web.yaml", Line: 3}, Revision: "rev",
	}
	service := api.Object{
		GVK: schema.GroupVersionKind{Version: "v1", Kind: "Service"}, Value: &corev1.Service{ObjectMeta: meta}, Source: api.Source{File: "svc.yaml", Line: 1},
	}
	pod := api.Pod{Identity: api.Identity{Namespace: "ns", Kind: "Deployment", Owner: "web", Slot: "0"}, Revision: "rev", Instance: "i"}
	v := &view{snapshot: api.NewSnapshot(nil, []api.Object{deployment, service}), pods: []podView{{pod: pod}}}
	for _, tt := range []struct{ kind, name, want string }{
		{"Deployment", "web", "web.yaml:3"},
		{"ReplicaSet", "web-rev", "web.yaml:3"},
		{"Pod", pod.Name(), "web.yaml:3"},
		{"Service", "web", "svc.yaml:1"},
		{"Endpoints", "web", "svc.yaml:1"},
		{"EndpointSlice", "web-abcde", "svc.yaml:1"},
		{"Pod", "other", ""},
		{"ConfigMap", "web", ""},
		{"ReplicaSet", "web", ""},
	} {
		_, source, found := v.where(tt.kind, "ns", tt.name)
		if found != (tt.want != "") || found && source.String() != tt.want {
			t.Errorf("%s %s is at %s (%v), want %s", tt.kind, tt.name, source, found, tt.want)
		}
	}
	if _, _, found := (*view)(nil).where("Pod", "ns", "x"); found {
		t.Error("found something before anything is known")
	}
}

// TestSecretsAreNotServed: the keys of a Secret are shown, its values never.
func TestSecretsAreNotServed(t *testing.T) {
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "token"}, Data: map[string][]byte{"key": []byte("canary")},
	}
	object := api.Object{GVK: schema.GroupVersionKind{Version: "v1", Kind: "Secret"}, Value: secret}
	v := &view{snapshot: api.NewSnapshot(nil, []api.Object{object})}
	var w wardrobe
	for range 2 {
		for _, shown := range v.objects(&w, nil) {
			if got, ok := shown.(*corev1.Secret); ok && (len(got.Data) != 1 || len(got.Data["key"]) != 0) {
				t.Errorf("the API shows %+v", got)
			}
		}
	}
	if string(secret.Data["key"]) != "canary" {
		t.Error("the Secret that pods get was changed")
	}
	if first, second := w.dress(v)[0], w.dress(v)[0]; first != second {
		t.Error("an unchanged object is copied again")
	}
}

// TestTrafficFollowsTheHighestClaim: of two pods that say they are ready under
// one exclusive identity, only the one with the higher claim gets traffic.
func TestTrafficFollowsTheHighestClaim(t *testing.T) {
	id := api.Identity{Namespace: "ns", Kind: "Deployment", Owner: "db", Slot: "0"}
	pod := func(node string, index uint64) podView {
		p := api.Pod{Identity: id, Instance: node}
		return podView{
			pod: p, node: node, object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: node}},
			state: &api.PodState{Pod: p, Ready: true, IP: "10.64.0.2", Claim: api.Claim{Epoch: 1, Index: index}},
		}
	}
	ready := func(v *view) string {
		out := ""
		for _, p := range v.trafficPods() {
			if p.Ready {
				out += p.Node + " "
			}
		}
		return out
	}
	v := &view{pods: []podView{pod("n1", 5), pod("n2", 9)}}
	if got := ready(v); got != "n2 " {
		t.Errorf("traffic goes to %s, want n2", got)
	}
	// The claim was granted to a third node whose pod has not said anything yet.
	v.board.Claims = map[string]api.ClaimHolder{id.String(): {Claim: api.Claim{Epoch: 1, Index: 12}, Node: "n3"}}
	if got := ready(v); got != "" {
		t.Errorf("traffic goes to %s, want to nobody", got)
	}
	// Pods that are not exclusive have no claim, and all of them get traffic.
	v = &view{pods: []podView{pod("n1", 0), pod("n2", 0)}}
	v.pods[0].state.Claim, v.pods[1].state.Claim = api.Claim{}, api.Claim{}
	if got := ready(v); got != "n1 n2 " {
		t.Errorf("traffic goes to %s, want both", got)
	}
}
