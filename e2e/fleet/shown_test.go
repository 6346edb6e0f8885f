//go:build e2e

package fleet

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/internal/testenv"
)

const crashingYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: crashing, namespace: app}
spec:
  replicas: 4
  selector: {matchLabels: {app: crashing}}
  template:
    metadata: {labels: {app: crashing}}
    spec:
      containers:
      - {name: well, image: "busybox:1", imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}
      - {name: broken, image: "busybox:1", imagePullPolicy: IfNotPresent, command: [sh, -c, "exit 3"]}
`

// kubectl runs kubectl on a machine against the machine's own daemon.
func (n *node) kubectl(config string, args ...string) (string, error) {
	out, err := n.net.Command("kubectl", append([]string{"--kubeconfig", config, "--request-timeout", "5s"}, args...)...).CombinedOutput()
	return string(out), err
}

// kubeconfig makes a configuration for kubectl on a machine.
func (n *node) kubeconfig(t *testing.T) string {
	t.Helper()
	path := filepath.Join(testenv.Dir(t), "kubeconfig")
	if err := os.WriteFile(path, []byte(n.must("kubeconfig")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestEveryNodeShowsAll: kubectl on any machine, also on one that does not vote,
// shows the events and the containers of all, and what each of them uses; and
// the API's certificate follows a machine to another address while it runs.
func TestEveryNodeShowsAll(t *testing.T) {
	w := newWorld(t, 4)
	w.write(map[string]string{"crashing.yaml": crashingYAML})
	w.commit("crashing")
	stranger := w.nodes[0]
	for _, n := range w.nodes {
		s, err := n.status()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(s.Voters, n.name) {
			stranger = n
		}
	}
	t.Logf("%s does not vote", stranger.name)
	config := stranger.kubeconfig(t)
	w.eventually(60*time.Second, "the crashes on all nodes are shown on "+stranger.name, func() (bool, string) {
		out, err := stranger.kubectl(config, "get", "pods", "-n", "app", "-o", "json")
		var list corev1.PodList
		if err == nil {
			err = json.Unmarshal([]byte(out), &list)
		}
		nodes := map[string]bool{}
		for _, p := range list.Items {
			if len(p.Status.ContainerStatuses) != 2 {
				return false, out
			}
			well, broken := p.Status.ContainerStatuses[0], p.Status.ContainerStatuses[1]
			last := broken.LastTerminationState.Terminated
			if well.State.Running != nil && well.RestartCount == 0 && broken.RestartCount > 0 && last != nil && last.ExitCode == 3 {
				nodes[p.Spec.NodeName] = true
			}
		}
		return len(nodes) == 4, fmt.Sprint(nodes, err)
	})
	for _, n := range []*node{stranger, w.leader()} {
		config := n.kubeconfig(t)
		w.eventually(10*time.Second, "the events of all nodes are shown on "+n.name, func() (bool, string) {
			out, err := n.kubectl(config, "get", "events", "-A", "-o", "json")
			var list corev1.EventList
			if err == nil {
				err = json.Unmarshal([]byte(out), &list)
			}
			started, scheduled := map[string]bool{}, false
			for _, e := range list.Items {
				started[e.Source.Host] = started[e.Source.Host] || e.Reason == "Started"
				scheduled = scheduled || e.Reason == "Scheduled"
			}
			return len(started) == 4 && scheduled && !slices.Contains([]bool{started["n1"], started["n2"], started["n3"], started["n4"]}, false), fmt.Sprint(started, scheduled, err)
		})
		w.eventually(30*time.Second, "the usage of all nodes is shown on "+n.name, func() (bool, string) {
			s, err := n.status()
			ok := err == nil && len(s.Usage) == 4
			for _, u := range s.Usage {
				ok = ok && u.Used.Memory().Value() > 0 && len(u.Pods) > 0
			}
			return ok, fmt.Sprintf("%+v %v", s.Usage, err)
		})
		w.eventually(40*time.Second, "kubectl top on "+n.name+" shows what nodes and their containers have measured", func() (bool, string) {
			nodes, err := n.kubectl(config, "top", "nodes", "--no-headers")
			containers, err2 := n.kubectl(config, "top", "pods", "-n", "app", "--containers", "--no-headers")
			well := regexp.MustCompile(`(?m)^crashing-\S+ +well +\d+m +\d+Mi`).FindAllString(containers, -1)
			return err == nil && err2 == nil && strings.Count(nodes, "Mi") == 4 && len(well) == 4, nodes + containers + fmt.Sprint(err, err2)
		})
	}
	out, err := stranger.kubectl(config, "describe", "node", w.nodes[0].name)
	if err != nil {
		t.Error(err)
	}
	t.Logf("%s", strings.Join(strings.SplitN(out, "\n", 12)[:11], "\n"))

	// The machine gets another address.
	err = stranger.net.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, _ := netlink.ParseAddr(stranger.address + "/24")
		addr, _ := netlink.ParseAddr("192.0.2.77/24")
		if err := netlink.AddrDel(link, old); err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		_ = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: []byte{192, 0, 2, 1}}) // it may have stayed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stranger.address = "192.0.2.77"
	took := w.eventually(60*time.Second, "the API answers at the new address under its name", func() (bool, string) {
		out, err := stranger.kubectl(config, "--server", "https://192.0.2.77:6443", "get", "--raw", "/healthz")
		return err == nil && out == "ok", fmt.Sprint(out, err)
	})
	t.Logf("the certificate followed after %s", took.Round(100*time.Millisecond))
}
