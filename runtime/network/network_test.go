package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newNetwork(t *testing.T) (*Network, string) {
	t.Helper()
	dir := testenv.Dir(t)
	n, err := New(Config{RunDir: dir, PodCIDR: netip.MustParsePrefix("10.64.3.0/24")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Reset(context.Background()); err != nil {
			t.Error(err)
		}
		if mounts := testenv.Mounts(dir); len(mounts) > 0 {
			t.Errorf("left mounted: %q", mounts)
		}
	})
	return n, dir
}

func links(t *testing.T) (names []string) {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		if l.Type() == "veth" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

func TestSandboxes(t *testing.T) {
	n, dir := newNetwork(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	ips := map[string]bool{}
	for i := range 8 {
		wg.Go(func() {
			s := Sandbox{Instance: fmt.Sprint("i", i), Namespace: "default", Pod: fmt.Sprint("p", i), Hostname: "box"}
			id, err := n.Prepare(s)
			if err != nil {
				t.Error(err)
				return
			}
			info, err := n.Connect(t.Context(), s, id)
			if err != nil || len(info.IPs) != 1 || info.ID != id {
				t.Errorf("got %+v, %v", info, err)
				return
			}
			mu.Lock()
			ips[info.IPs[0]] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(ips) != 8 || len(links(t)) != 8 {
		t.Errorf("addresses: %v, links: %v", ips, links(t))
	}
	// Another process sees the same.
	again, err := New(n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	all, err := again.List()
	if err != nil || len(all) != 8 || !all[0].Complete || !ips[all[0].IPs[0]] {
		t.Errorf("listed: %+v, %v", all, err)
	}
	for range 2 {
		if err := again.Remove(t.Context(), "i0"); err != nil {
			t.Error(err)
		}
	}
	removed, err := again.Sweep(t.Context(), func(instance string) bool { return instance < "i5" })
	if err != nil || !slices.Equal(removed, []string{"i5", "i6", "i7"}) {
		t.Errorf("swept: %q, %v", removed, err)
	}
	leases, _ := filepath.Glob(filepath.Join(dir, "cni", "leases", "shoal", "10.*"))
	if len(leases) != 4 || len(links(t)) != 4 {
		t.Errorf("leases: %q, links: %q", leases, links(t))
	}
}

// A sandbox that was interrupted at any point is seen as incomplete and can be
// removed and made again.
func TestInterrupted(t *testing.T) {
	n, dir := newNetwork(t)
	s := Sandbox{Instance: "i", Namespace: "default", Pod: "p", Hostname: "box"}
	for name, interrupt := range map[string]func() error{
		"nothing but the folder": func() error { return os.MkdirAll(n.path("sandboxes", "i"), 0o711) },
		"namespaces":             func() error { _, err := n.Prepare(s); return err },
		"network, no record": func() error {
			id, err := n.Prepare(s)
			if err == nil {
				_, err = n.Connect(t.Context(), s, id)
			}
			if err == nil {
				err = os.Remove(n.pin("i", "record"))
			}
			return err
		},
		"a pin that is not mounted": func() error {
			id, err := n.Prepare(s)
			if err == nil {
				_, err = n.Connect(t.Context(), s, id)
			}
			testenv.Unmount(n.pin("i", "net"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := interrupt(); err != nil {
				t.Fatal(err)
			}
			if info, found := n.Get("i"); !found || info.Complete {
				t.Errorf("got %+v, %t", info, found)
			}
			if err := n.Remove(t.Context(), "i"); err != nil {
				t.Fatal(err)
			}
			id, err := n.Prepare(s)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.Connect(t.Context(), s, id); err != nil {
				t.Fatal(err)
			}
			if err := n.Remove(t.Context(), "i"); err != nil {
				t.Fatal(err)
			}
			// A namespace that nothing pins any more goes a little later.
			for deadline := time.Now().Add(5 * time.Second); len(links(t)) > 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			if mounts := testenv.Mounts(dir); len(mounts) > 0 || len(links(t)) > 0 {
				t.Errorf("left: %q %q", mounts, links(t))
			}
		})
	}
}

// The host's own interfaces survive whatever happens to pods in its network.
func TestHostNetwork(t *testing.T) {
	n, _ := newNetwork(t)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if link, err := netlink.LinkByName("eth0"); err == nil {
			_ = netlink.LinkDel(link)
		}
	}()
	s := Sandbox{Instance: "h", Namespace: "default", Pod: "p", HostNetwork: true}
	for _, complete := range []bool{true, false} {
		id, err := n.Prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		if complete {
			if _, err := n.Connect(t.Context(), s, id); err != nil {
				t.Fatal(err)
			}
		}
		if !isHost(n.pin("h", "net")) {
			t.Error("the pin is not the host's network")
		}
		if err := n.Remove(t.Context(), "h"); err != nil {
			t.Fatal(err)
		}
		if _, err := netlink.LinkByName("eth0"); err != nil {
			t.Fatalf("complete %t: the host lost eth0", complete)
		}
	}
}

func TestNoPodCIDR(t *testing.T) {
	n, err := New(Config{RunDir: testenv.Dir(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := Sandbox{Instance: "i", Namespace: "default", Pod: "p"}
	id, err := n.Prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Connect(t.Context(), s, id); err == nil || !strings.Contains(err.Error(), "no pod CIDR") {
		t.Errorf("got %v", err)
	}
	if err := n.Remove(t.Context(), "i"); err != nil {
		t.Error(err)
	}
}

func TestPodResolv(t *testing.T) {
	dns := runtime.DNSConfig{Server: "10.96.0.10", Domain: "cluster.local"}
	node := Resolv{Nameservers: []string{"192.0.2.53"}, Search: []string{"example.com"}, Options: []string{"timeout:1"}}
	cluster := []string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.com"}
	five, empty := "2", ""
	for _, c := range []struct {
		name string
		spec corev1.PodSpec
		dns  runtime.DNSConfig
		want Resolv
	}{
		{"cluster first", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst}, dns, Resolv{[]string{"10.96.0.10"}, cluster, []string{"ndots:5"}}},
		{"default", corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, dns, node},
		{"cluster first in the host's network", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true}, dns, node},
		{"with host network", corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true}, dns, Resolv{[]string{"10.96.0.10"}, cluster, []string{"ndots:5"}}},
		{"no cluster DNS", corev1.PodSpec{}, runtime.DNSConfig{}, node},
		{"none", corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{
			Nameservers: []string{"198.51.100.1"}, Searches: []string{"own"}, Options: []corev1.PodDNSConfigOption{{Name: "rotate", Value: &empty}},
		}}, dns, Resolv{[]string{"198.51.100.1"}, []string{"own"}, []string{"rotate"}}},
		{
			"own options win",
			corev1.PodSpec{DNSConfig: &corev1.PodDNSConfig{Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: &five}}}},
			dns,
			Resolv{[]string{"10.96.0.10"}, cluster, []string{"ndots:2"}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := PodResolv(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: c.spec}, c.dns, node)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if again := ParseResolv(got.Bytes()); !cmp.Equal(again, got) {
				t.Errorf("written and read: %+v", again)
			}
		})
	}
}

func TestHosts(t *testing.T) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "ns"},
		Spec:       corev1.PodSpec{Subdomain: "db", HostAliases: []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a", "b"}}}},
	}
	got := string(Hosts(pod, []string{"10.64.0.2"}, "cluster.local", nil))
	for _, want := range []string{"127.0.0.1\tlocalhost\n", "10.64.0.2\tweb-0.db.ns.svc.cluster.local\tweb-0\n", "192.0.2.9\ta\tb\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	pod.Spec.HostNetwork = true
	if got := string(Hosts(pod, []string{"10.64.0.2"}, "cluster.local", []byte("1.2.3.4 node"))); got != "1.2.3.4 node\n192.0.2.9\ta\tb\n" {
		t.Errorf("host network: %q", got)
	}
}

// What listens on a pod's loopback interface is reached from outside of it, and
// this process stays where it is.
func TestDial(t *testing.T) {
	n, _ := newNetwork(t)
	s := Sandbox{Instance: "i1", Namespace: "default", Pod: "p", Hostname: "box"}
	if _, err := n.Prepare(s); err != nil {
		t.Fatal(err)
	}
	listening := make(chan net.Listener, 1)
	go spare(func() {
		defer close(listening)
		pin, err := os.Open(n.pin("i1", "net"))
		if err != nil {
			t.Error(err)
			return
		}
		defer pin.Close() //nolint:errcheck // only a handle
		if err := unix.Setns(int(pin.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp", "127.0.0.1:7070")
		if err != nil {
			t.Error(err)
			return
		}
		listening <- l
	})
	l, ok := <-listening
	if !ok {
		return
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	}()
	conn, err := n.Dial(t.Context(), "i1", 7070)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := n.Dial(t.Context(), "i1", 7071); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a port where nobody listens: got %v", err)
	}
	if _, err := n.Dial(t.Context(), "i2", 7070); err == nil {
		t.Error("a pod that is not there was reached")
	}
	if isHost(n.pin("i1", "net")) {
		t.Error("this process moved")
	}
}
