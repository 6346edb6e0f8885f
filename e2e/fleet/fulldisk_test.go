//go:build e2e

package fleet

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disks gives the machines that will be added disks of their own for their
// state, of so many bytes. They go with the folders that they are mounted in.
func (w *world) disks(size int) {
	w.t.Helper()
	for _, s := range w.sites {
		dir := filepath.Join(s.dir, "disk")
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			err = unix.Mount("disk", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=755", size))
		}
		if err != nil {
			w.t.Fatalf("mount a disk: %v", err)
		}
	}
}

// fill fills the disk of the machine's state to the last byte, until it is freed.
func (n *node) fill() (free func()) {
	n.w.t.Helper()
	path := filepath.Join(filepath.Dir(n.state), "filler")
	file, err := os.Create(path)
	if err != nil {
		n.w.t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // what it holds is nothing
	for _, size := range []int{1 << 20, 4096, 1} {
		for block := make([]byte, size); err == nil; {
			_, err = file.Write(block)
		}
		if !errors.Is(err, unix.ENOSPC) {
			n.w.t.Fatal(err)
		}
		err = nil
	}
	return func() {
		n.w.t.Helper()
		if err := os.Remove(path); err != nil {
			n.w.t.Fatal(err)
		}
	}
}

// follows waits until machines have a commit in force.
func (w *world) follows(nodes []*node, commit string, limit time.Duration) {
	w.t.Helper()
	w.eventually(limit, fmt.Sprintf("%v follow %.7s", namesOf(nodes), commit), func() (bool, string) {
		for _, n := range nodes {
			if s, err := n.status(); err != nil || len(s.Units) != 1 || string(s.Units[0].Accepted.Commit) != commit {
				return false, fmt.Sprintf("%s: %+v %v %v", n.name, s.Units, s.Alarms, err)
			}
		}
		return true, ""
	})
}

func (n *node) tellsFull(limit time.Duration) {
	n.w.t.Helper()
	n.w.eventually(limit, n.name+" tells that its disk is full", func() (bool, string) {
		s, err := n.status()
		return err == nil && strings.Contains(fmt.Sprint(s.Alarms), "disk of the state folder is full"), fmt.Sprint(s.Alarms, err)
	})
}

// undisturbed fails when a container is not what it was.
func (w *world) undisturbed(before map[string]string) {
	w.t.Helper()
	now := w.processes("")
	for name, pid := range before {
		if now[name] != pid {
			w.t.Fatalf("the container %s was ended; processes were\n%v\nand are\n%v", name, before, now)
		}
	}
}

// full30 is how long a disk is full.
func full30() time.Duration {
	if full() {
		return 30 * time.Second
	}
	return 12 * time.Second
}

// TestFullDisk: the disk of one machine's state is full, first of one that
// follows, then of the leader, then of one whose daemon is killed meanwhile.
// What runs runs on; status says what is wrong; the fleet follows commits, under
// another leader if need be; and when there is space again all is well without
// a restart.
func TestFullDisk(t *testing.T) {
	w := prepare(t, 3)
	// Pods that wrote anything to the full disk would be evicted, rightly.
	w.settings = []string{"--eviction-hard", "memory.available<100Mi"}
	w.disks(256 << 20)
	for range 3 {
		w.add()
	}
	w.settled(time.Minute)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[0], "hello", 3, 40*time.Second)
	want := 3
	faults := []string{"the leader", "a follower whose daemon is killed"}
	if full() {
		faults = append(faults, "a follower", "the leader, whose daemon is killed")
	}
	for _, c := range faults {
		leader := w.leader()
		victim := leader
		if !strings.HasPrefix(c, "the leader") {
			victim = w.nodes[(slices.Index(w.nodes, leader)+1)%3]
		}
		others := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return n == victim })
		processes := w.processes("")
		free := victim.fill()
		begin := time.Now()
		t.Logf("%s (%s) has a full disk", c, victim.name)
		started := true
		if strings.HasSuffix(c, "killed") {
			victim.stop(syscall.SIGKILL)
			started = victim.tryStart(10 * time.Second)
			t.Logf("the daemon starts on a full disk: %v", started)
		}
		if started {
			victim.tellsFull(15 * time.Second)
		}
		want++
		w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, want)})
		commit := w.commit(fmt.Sprint(want))
		w.follows(others, commit, 10*time.Second)
		w.runsElsewhere(others, victim, want, 25*time.Second)
		t.Logf("the fleet has followed a commit %s after the disk was full", time.Since(begin).Round(10*time.Millisecond))
		if head := w.leader(); head == victim {
			t.Errorf("%s still leads", victim.name)
		}
		for time.Since(begin) < full30() {
			w.undisturbed(processes)
			time.Sleep(500 * time.Millisecond)
		}
		free()
		freed := time.Now()
		if !started {
			victim.start()
		}
		w.follows(w.nodes, commit, 30*time.Second)
		w.eventually(30*time.Second, "nothing is wrong any more", func() (bool, string) {
			s, err := victim.status()
			return err == nil && len(s.Alarms) == 0 && s.Units[0].Error == "", fmt.Sprint(s.Alarms, s.Units, err)
		})
		w.settled(15 * time.Second)
		w.undisturbed(processes)
		w.ready(victim, "hello", want, 30*time.Second)
		t.Logf("all is well %s after there was space", time.Since(freed).Round(10*time.Millisecond))
	}
	// What was decided while the disk was full is not forgotten.
	processes := w.processes("")
	for _, n := range w.nodes {
		n.stop(syscall.SIGKILL)
	}
	for _, n := range w.nodes {
		n.start()
	}
	w.settled(30 * time.Second)
	w.ready(w.nodes[0], "hello", want, 30*time.Second)
	if now := w.processes(""); !maps.Equal(now, processes) {
		t.Errorf("after a restart of all daemons processes were\n%v\nand are\n%v", processes, now)
	}
}

// runsElsewhere waits until a number of pods runs, those on one machine included
// as they were.
func (w *world) runsElsewhere(eyes []*node, victim *node, want int, limit time.Duration) {
	w.t.Helper()
	w.eventually(limit, fmt.Sprintf("%d pods run", want), func() (bool, string) {
		n, last := 0, ""
		s, err := eyes[0].status()
		for _, p := range s.Pods {
			if strings.HasPrefix(p.Name, "hello") {
				last += fmt.Sprintf("%+v\n", p)
				if p.Ready {
					n++
				}
			}
		}
		return err == nil && n == want, fmt.Sprintf("%sleader %s, unwell %v, %s has %d %v", last, s.Leader, s.Health, victim.name, len(victim.containers("hello")), err)
	})
}

// tryStart starts the daemon, and reports whether it has listed its pods within
// some time; when it ended instead, it must have said why.
func (n *node) tryStart(limit time.Duration) bool {
	n.w.t.Helper()
	n.launch()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		select {
		case <-n.ended:
			raw, _ := os.ReadFile(n.log.Name()) // what there is
			lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, "no space left") {
				n.w.t.Errorf("%s ended and does not say that the disk is full: %s", n.name, last)
			}
			n.cmd = nil
			return false
		default:
		}
		if s, err := n.status(); err == nil && s.Observed {
			return true
		}
	}
	n.w.t.Fatalf("%s neither runs nor ends", n.name)
	return false
}
