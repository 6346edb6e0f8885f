//go:build e2e

package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
)

// The container takes a lock on a file that all machines share, and writes when
// it has it and, every 50 ms, that it still does. A second one that cannot get
// the lock at once writes so: that is an overlap.
const exclusiveYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: one, namespace: app}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: one}}
  template:
    metadata: {labels: {app: one}}
    spec:
      terminationGracePeriodSeconds: 1
      volumes: [{name: witness, hostPath: {path: %s}}]
      containers:
      - name: one
        image: witness:1
        imagePullPolicy: IfNotPresent
        command: [sh, -c]
        args:
        - |
          exec 9>/witness/lock
          flock -n 9 || { echo "overlap $HOSTNAME" >> /witness/log; exit 1; }
          while :; do read up rest < /proc/uptime; echo "beat $HOSTNAME $up" >> /witness/log; usleep 50000; done
        volumeMounts: [{name: witness, mountPath: /witness}]
`

// witness reads what the containers of the one exclusive pod wrote.
type witness struct {
	t   *testing.T
	dir string
}

// beat is one sign of life of a container, in seconds since the machine's boot.
type beat struct {
	pod string
	at  float64
}

func (s witness) beats() (out []beat, overlaps []string) {
	s.t.Helper()
	raw, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		switch words := strings.Fields(line); {
		case len(words) == 3 && words[0] == "beat":
			at, _ := strconv.ParseFloat(words[2], 64)
			out = append(out, beat{words[1], at})
		case len(words) > 0 && words[0] == "overlap":
			overlaps = append(overlaps, line)
		}
	}
	return out, overlaps
}

// check fails when two pods ever ran at the same time: by their own words, or
// because one of them was heard of between two signs of another.
func (s witness) check() {
	s.t.Helper()
	beats, overlaps := s.beats()
	if len(overlaps) > 0 {
		s.t.Errorf("two held the lock: %q", overlaps)
	}
	last := map[string]int{}
	for i, b := range beats {
		last[b.pod] = i
	}
	for i, b := range beats[1:] {
		if before := beats[i]; before.pod != b.pod && last[before.pod] > i {
			s.t.Errorf("%s was alive at %.2f, and %s at %.2f and later", b.pod, b.at, before.pod, before.at)
		}
	}
}

func uptime(t *testing.T) float64 {
	t.Helper()
	raw, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	at, err := strconv.ParseFloat(strings.Fields(string(raw))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// moved waits until another pod than the one before is alive, and returns how
// long after a time the old one was last and the new one first alive.
func (s witness) moved(w *world, from string, since float64, limit time.Duration) (last, first float64) {
	s.t.Helper()
	w.eventually(limit, "another pod than "+from+" is alive", func() (bool, string) {
		beats, overlaps := s.beats()
		if len(beats) == 0 {
			return false, "nobody ever was"
		}
		b := beats[len(beats)-1]
		return b.pod != from, fmt.Sprint(b, overlaps)
	})
	beats, _ := s.beats()
	for _, b := range beats {
		if b.pod == from {
			last = b.at - since
		} else if first == 0 && b.at > since {
			first = b.at - since
		}
	}
	return last, first
}

// fault returns how long a fault lasts, in seconds: until the pod runs elsewhere
// for a while, or as long as asked for when there is time.
func fault(seconds float64) float64 {
	if full() {
		return seconds
	}
	return 20
}

// exclusive makes a world with one exclusive pod, and returns the machine that
// it runs on.
func exclusive(t *testing.T) (*world, witness, func() (*node, string)) {
	t.Helper()
	w := newWorld(t, 3)
	s, where := w.exclusive(t)
	return w, s, where
}

// exclusive adds an exclusive pod to a world.
func (w *world) exclusive(t *testing.T) (witness, func() (*node, string)) {
	t.Helper()
	s := witness{t, w.desk}
	if err := os.Chmod(s.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.nodes {
		n.archive(t)
	}
	w.write(map[string]string{"one.yaml": fmt.Sprintf(exclusiveYAML, s.dir)})
	w.commit("one")
	return s, func() (*node, string) {
		t.Helper()
		for name, on := range w.ready(w.running()[0], "one", 1, 40*time.Second) {
			for _, n := range w.nodes {
				if n.name == on {
					return n, name
				}
			}
		}
		t.Fatal("it is nowhere")
		return nil, ""
	}
}

// archive puts the image of the exclusive pod on the machine.
func (n *node) archive(t *testing.T) {
	t.Helper()
	image := testenv.Busybox()
	if err := image.AddProgram("/usr/bin/flock"); err != nil { // Debian's busybox has none
		t.Fatal(err)
	}
	testenv.Archive(t, filepath.Join(n.state, "images"), "witness:1", testenv.Image(t, image))
}

// TestExclusiveNodeDies: the pod of a machine that is gone runs elsewhere, and
// never twice.
func TestExclusiveNodeDies(t *testing.T) {
	w, s, where := exclusive(t)
	holder, pod := where()
	begin := uptime(t)
	holder.die()
	_, first := s.moved(w, pod, begin, 40*time.Second)
	t.Logf("moved from %s after %.1f s", holder.name, first)
	if first > 25 {
		t.Errorf("it took %.1f s", first)
	}
	holder.revive()
	w.settled(30 * time.Second)
	where()
	s.check()
}

// TestExclusiveDaemonStopped: a daemon that is frozen cannot end its pod; the
// fencer does. When the daemon goes on, the pod is another's.
func TestExclusiveDaemonStopped(t *testing.T) {
	w, s, where := exclusive(t)
	holder, pod := where()
	holder.killFencer()
	begin := uptime(t)
	if err := holder.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	last, first := s.moved(w, pod, begin, 60*time.Second)
	t.Logf("frozen at 0 s: last alive at %.2f s, alive elsewhere at %.2f s", last, first)
	if last > 10.5 || first > 25 {
		t.Errorf("last alive at %.2f s, alive elsewhere at %.2f s", last, first)
	}
	for uptime(t) < begin+fault(60) {
		s.check()
		time.Sleep(time.Second)
	}
	if err := holder.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.settled(30 * time.Second)
	w.eventually(30*time.Second, "the old pod is gone", func() (bool, string) { return len(holder.pids()) == 0, fmt.Sprint(holder.pids()) })
	where()
	s.check()
}

// fencers returns the processes of the machine's fencer.
func (n *node) fencers() (pids []int) {
	n.w.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, file := range files {
		raw, _ := os.ReadFile(file) // it may have ended
		if args := string(raw); strings.Contains(args, "\x00fence\x00") && strings.Contains(args, n.run+"/") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// killFencer kills the machine's fencer and waits for its successor.
func (n *node) killFencer() {
	n.w.t.Helper()
	old := n.fencers()
	if len(old) != 1 {
		n.w.t.Fatalf("%s has %d fencers", n.name, len(old))
	}
	if err := syscall.Kill(old[0], syscall.SIGKILL); err != nil {
		n.w.t.Fatal(err)
	}
	took := n.w.eventually(2*time.Second, n.name+" has another fencer", func() (bool, string) {
		now := n.fencers()
		return len(now) == 1 && now[0] != old[0], fmt.Sprint(now)
	})
	n.w.t.Logf("another fencer after %s", took)
}

// TestExclusiveSplit: the holder's cable is cut; its part has no quorum, and its
// pod ends before it runs in the other part.
func TestExclusiveSplit(t *testing.T) {
	w, s, where := exclusive(t)
	holder, pod := where()
	begin := uptime(t)
	holder.cable("sw1")
	last, first := s.moved(w, pod, begin, 60*time.Second)
	t.Logf("cut at 0 s: last alive at %.2f s, alive elsewhere at %.2f s", last, first)
	if last > 10.5 || first > 25 {
		t.Errorf("last alive at %.2f s, alive elsewhere at %.2f s", last, first)
	}
	for uptime(t) < begin+fault(40) {
		s.check()
		time.Sleep(time.Second)
	}
	holder.cable("sw0")
	w.settled(30 * time.Second)
	w.eventually(30*time.Second, "the old pod is gone", func() (bool, string) { return len(holder.pids()) == 0, fmt.Sprint(holder.pids()) })
	where()
	s.check()
}

// TestExclusiveRestart: a daemon that is restarted on purpose has its lease kept
// by the fencer; the pod's process is the same afterwards, also when the restart
// takes longer than an ordinary lease.
func TestExclusiveRestart(t *testing.T) {
	w, s, where := exclusive(t)
	holder, pod := where()
	pauses := []time.Duration{12 * time.Second}
	if full() {
		pauses = []time.Duration{0, 40 * time.Second}
	}
	for _, pause := range pauses {
		before := holder.pids()
		begin := uptime(t)
		holder.stop(syscall.SIGTERM)
		t.Logf("the daemon ended within %.2f s", uptime(t)-begin)
		for uptime(t) < begin+pause.Seconds() {
			time.Sleep(100 * time.Millisecond)
		}
		holder.start()
		w.settled(30 * time.Second)
		for end := uptime(t) + 15; uptime(t) < end; { // longer than the lease that was left
			time.Sleep(100 * time.Millisecond)
		}
		after := holder.pids()
		if len(before) != 1 || fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("away for %s: processes %v, then %v", pause, before, after)
		}
		if n, name := where(); n != holder || name != pod {
			t.Errorf("away for %s: %s is on %s", pause, name, n.name)
		}
	}
	s.check()
}

// TestExclusiveRemove: the machine with the exclusive pod is removed from the
// fleet while it runs. Its pod ends with its lease, and only then runs elsewhere;
// then the machine joins again by the same name.
func TestExclusiveRemove(t *testing.T) {
	w, s, where := exclusive(t)
	rounds := 1
	if full() {
		rounds = 3
	}
	for range rounds {
		holder, pod := where()
		leader := w.leader()
		voter := w.voter(holder)
		begin := uptime(t)
		voter.must("remove", holder.name)
		last, first := s.moved(w, pod, begin, 60*time.Second)
		t.Logf("%s, which has the pod, was removed; %s led: last alive at %.2f s, alive elsewhere at %.2f s", holder.name, leader.name, last, first)
		if last > 10.5 || first > 25 {
			t.Errorf("last alive at %.2f s, alive elsewhere at %.2f s", last, first)
		}
		if st, err := holder.status(); err != nil || !strings.Contains(fmt.Sprint(st.Alarms), "was removed from") {
			t.Errorf("the removed node does not say so: %v %v", st.Alarms, err)
		}
		holder.stop(syscall.SIGTERM)
		if out, err := holder.shoal("reset"); err != nil {
			t.Fatalf("reset: %v\n%s", err, out)
		}
		holder.images()
		holder.archive(t)
		voter = w.voter(holder) // two nodes have one vote
		holder.must("join", voter.address, "--token", strings.TrimSpace(voter.must("token", "create")))
		holder.start()
		w.settled(60 * time.Second)
		where()
		s.check()
	}
}
