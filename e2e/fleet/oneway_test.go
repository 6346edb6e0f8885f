//go:build e2e

package fleet

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// iptables runs iptables on the machine. Shoal leaves the table alone that the
// tests write to.
func (n *node) iptables(args ...string) {
	n.w.t.Helper()
	out, err := n.net.Command("iptables", append([]string{"-w", "5"}, args...)...).CombinedOutput()
	if err != nil {
		n.w.t.Fatalf("%s: iptables %s: %v\n%s", n.name, strings.Join(args, " "), err, out)
	}
}

// deaf makes the machine hear nothing of what another one sends: one direction
// of their link is cut, whatever goes through it.
func (n *node) deaf(to *node) (heal func()) {
	n.w.t.Helper()
	var mac string
	err := to.net.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err == nil {
			mac = link.Attrs().HardwareAddr.String()
		}
		return err
	})
	if err != nil {
		n.w.t.Fatal(err)
	}
	rule := []string{"PREROUTING", "-t", "raw", "-m", "mac", "--mac-source", mac, "-j", "DROP"}
	n.iptables(append([]string{"-I"}, rule...)...)
	return func() { n.w.t.Helper(); n.iptables(append([]string{"-D"}, rule...)...) }
}

// mute makes the machine heard by nobody, while it hears everybody.
func (n *node) mute() (heal func()) {
	n.w.t.Helper()
	rule := []string{"POSTROUTING", "-t", "mangle", "-o", "eth0", "-j", "DROP"}
	n.iptables(append([]string{"-I"}, rule...)...)
	return func() { n.w.t.Helper(); n.iptables(append([]string{"-D"}, rule...)...) }
}

// containers returns the processes of the machine's containers whose pods' names
// begin with a text, by container.
func (n *node) containers(prefix string) map[string]string {
	n.w.t.Helper()
	filter := fmt.Sprintf(`labels."fleet.shoal.dev/pod"~="^%s"`, prefix)
	ids, err := exec.Command("ctr", "-a", n.w.containerd.Address, "-n", n.namespace, "containers", "ls", "-q", filter).Output()
	if err != nil {
		n.w.t.Fatalf("%s: list containers: %v", n.name, err)
	}
	running, out := n.pids(), map[string]string{}
	for id := range strings.FieldsSeq(string(ids)) {
		if pid, runs := running[id]; runs {
			out[id] = pid
		}
	}
	return out
}

// processes returns the processes of all containers whose pods' names begin with
// a text, by machine and container.
func (w *world) processes(prefix string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for _, n := range w.nodes {
		for id, pid := range n.containers(prefix) {
			out[n.name+" "+id] = pid
		}
	}
	return out
}

// TestOneWayPair: of one pair of machines one does not hear the other, whichever
// of them leads. Everybody goes on following one quorate leader, through others
// where the way is cut; no pod moves, nothing is started or ended, not even what
// is exclusive.
func TestOneWayPair(t *testing.T) {
	w, s, where := exclusive(t)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	before := w.ready(w.nodes[0], "hello", 3, 40*time.Second)
	where()
	processes := w.processes("")
	faults := []string{"the leader does not hear a follower"}
	if full() {
		faults = append(faults, "a follower does not hear the leader", "a follower does not hear another")
	}
	for _, c := range faults {
		leader := w.leader()
		i := slices.Index(w.nodes, leader)
		a, b := w.nodes[(i+1)%3], w.nodes[(i+2)%3]
		who, whom := a, leader
		switch {
		case strings.HasPrefix(c, "the leader"):
			who, whom = leader, a
		case strings.HasSuffix(c, "another"):
			who, whom = a, b
		}
		t.Logf("%s: %s is deaf to %s, %s leads", c, who.name, whom.name, leader.name)
		heal := who.deaf(whom)
		end := time.Now().Add(time.Duration(oneWayFor()) * time.Second)
		took := w.united(8 * time.Second)
		t.Logf("all follow one quorate leader, %s, %s after the cut", w.leader().name, took.Round(10*time.Millisecond))
		for time.Now().Before(end) {
			w.united(3 * time.Second) // between two elections nobody leads for a moment
			if now := w.processes(""); !maps.Equal(now, processes) {
				t.Fatalf("%s: processes were\n%v\nand are\n%v", c, processes, now)
			}
			time.Sleep(200 * time.Millisecond)
		}
		heal()
		healed := time.Now()
		w.settled(15 * time.Second)
		t.Logf("one fleet %s after the heal", time.Since(healed).Round(10*time.Millisecond))
		for _, eyes := range w.nodes {
			if now := w.ready(eyes, "hello", 3, 10*time.Second); !maps.Equal(now, before) {
				t.Errorf("%s: pods were\n%v\nand are\n%v", c, before, now)
			}
		}
	}
	s.check()
}

// oneWayFor is how many seconds a link is cut: longer than a lease.
func oneWayFor() float64 {
	if full() {
		return 60
	}
	return 12
}

// united waits until all machines follow one quorate leader that they have heard
// of within two seconds, and none is lost in anybody's eyes.
func (w *world) united(limit time.Duration) time.Duration {
	w.t.Helper()
	return w.eventually(limit, "all follow one quorate leader", func() (bool, string) {
		leaders, last, well := map[string]bool{}, "", true
		for _, n := range w.running() {
			s, err := n.status()
			last += fmt.Sprintf("%s: leader %s quorate %v term %d heard %s, unwell %v %v\n", n.name, s.Leader, s.Quorate, s.Term, s.Heard, s.Health, err)
			well = well && err == nil && s.Quorate && s.Heard < 2*time.Second
			for _, h := range s.Health {
				well = well && !h.Gone()
			}
			leaders[s.Leader] = true
		}
		return well && len(leaders) == 1, last
	})
}

// TestMute: a machine hears everybody and is heard by nobody, the one with the
// exclusive pod, or the one that leads. Somebody who is heard leads; what
// ran on the mute one runs elsewhere, and nothing else moves.
func TestMute(t *testing.T) {
	w, s, where := exclusive(t)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	faults := []string{"the holder"}
	if full() {
		faults = []string{"the leader", "the holder", "the leader"}
	}
	for _, c := range faults {
		w.ready(w.nodes[0], "hello", 3, 60*time.Second)
		holder, pod := where()
		victim := w.leader()
		if c == "the holder" {
			victim = holder
		}
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == victim })
		ordinary := w.processes("hello")
		maps.Copy(ordinary, w.processes("each"))
		begin, cut := uptime(t), time.Now()
		heal := victim.mute()
		t.Logf("%s (%s) is mute, %s has the exclusive pod", c, victim.name, holder.name)
		w.eventually(10*time.Second, "somebody who is heard leads", func() (bool, string) {
			x, err := others[0].status()
			y, err2 := others[1].status()
			return err == nil && err2 == nil && x.Quorate && y.Quorate && x.Leader == y.Leader && x.Leader != victim.name && x.Leader != "",
				fmt.Sprint(x.Leader, x.Quorate, y.Leader, y.Quorate)
		})
		w.eventually(12*time.Second, "three pods are ready elsewhere", func() (bool, string) {
			pods := others[0].pods("hello")
			return pods[others[0].name]+pods[others[1].name] == 3, fmt.Sprint(pods)
		})
		t.Logf("three pods are ready elsewhere after %s", time.Since(cut).Round(10*time.Millisecond))
		if victim == holder {
			last, first := s.moved(w, pod, begin, 40*time.Second)
			t.Logf("the exclusive pod: last alive at %.2f s, alive elsewhere at %.2f s", last, first)
			if last > 10.5 || first > 25 {
				t.Errorf("last alive at %.2f s, alive elsewhere at %.2f s", last, first)
			}
		}
		for uptime(t) < begin+fault(60) {
			s.check()
			time.Sleep(500 * time.Millisecond)
		}
		if x, err := victim.status(); err != nil || x.Quorate && x.Leader == victim.name {
			t.Errorf("%s still takes itself for a quorate leader: %+v %v", victim.name, x.Health, err)
		}
		now := w.processes("")
		for name, pid := range ordinary {
			if now[name] != pid {
				t.Errorf("the container %s was ended", name)
			}
		}
		if on := holder.containers("one"); len(on) != 1 && victim != holder {
			t.Errorf("the exclusive pod does not run on %s any more: %v", holder.name, on)
		}
		heal()
		healed := time.Now()
		w.settled(15 * time.Second)
		t.Logf("one fleet %s after the heal", time.Since(healed).Round(10*time.Millisecond))
		if full() {
			w.three(others[0], 60*time.Second) // what is surplus waits for 30 s
		}
	}
	where()
	s.check()
}
