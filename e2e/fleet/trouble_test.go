//go:build e2e

package fleet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// TestStalls: a daemon that stops for 2 s moves nothing; one that stops for
// longer is lost, and when it goes on all is as before.
func TestStalls(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	before := w.ready(w.nodes[0], "hello", 3, 40*time.Second)
	leader := w.leader()
	victim, eyes := w.nodes[1], w.nodes[2]
	if leader == victim {
		victim = w.nodes[0]
	}
	if leader == eyes {
		eyes = w.nodes[0]
	}
	for _, stall := range []time.Duration{500 * time.Millisecond, time.Second, 1800 * time.Millisecond} {
		if err := syscall.Kill(victim.daemon(), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		time.Sleep(stall)
		if err := syscall.Kill(victim.daemon(), syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if after := w.ready(eyes, "hello", 3, 10*time.Second); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("a stall of %s moved pods:\n%v\n%v", stall, before, after)
		}
	}
	pids := victim.containers("hello")
	if len(pids) == 0 {
		t.Fatalf("no pod runs on %s", victim.name)
	}
	if err := syscall.Kill(victim.daemon(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	w.eventually(10*time.Second, "a pod replaces that of the node that stalls", func() (bool, string) {
		pods := eyes.pods("hello")
		return pods[victim.name] == 0 && pods[eyes.name]+pods[leader.name] == 3, fmt.Sprint(pods)
	})
	if err := syscall.Kill(victim.daemon(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	w.settled(15 * time.Second)
	after := victim.containers("hello")
	for id, pid := range pids {
		if after[id] != pid {
			t.Errorf("the container %s of the node that stalled was killed at once", id)
		}
	}
	w.three(eyes, 60*time.Second)
}

// TestDamagedState: whatever file of the state folder is damaged or gone, the
// daemon says so or mends it, and never panics; no pod of any node is touched.
func TestDamagedState(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[0], "hello", 3, 40*time.Second)
	n := w.nodes[2]
	pids := n.pids()
	var files []string
	err := filepath.WalkDir(filepath.Join(n.state, "fleet"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != "lock" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(n.state, "decided.json"))
	if !full() {
		files = []string{filepath.Join(n.state, "fleet/raft/state"), filepath.Join(n.state, "decided.json")}
	}
	for _, file := range files {
		good, err := os.ReadFile(file)
		if err != nil || len(good) == 0 {
			continue
		}
		n.stop(syscall.SIGKILL)
		if good, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		bad := append([]byte(nil), good...)
		bad[min(len(bad)/2, 40)] ^= 0x10
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(file, n.state)
		cmd := n.net.Command(program(t), n.args("run")...)
		cmd.Stdout, cmd.Stderr = n.log, n.log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		n.cmd = nil
		well := false
		select {
		case err := <-ended:
			log, _ := os.ReadFile(n.log.Name())
			if strings.Contains(string(log), "goroutine 1 [") {
				t.Fatalf("%s: the daemon panicked: %v", name, err)
			}
			t.Logf("%s: refused to start: %v", name, err)
		case <-time.After(4 * time.Second):
			s, err := n.status()
			well = err == nil && s.Observed
			t.Logf("%s: started; alarms %v, quorate %v %v", name, s.Alarms, s.Quorate, err)
			_ = cmd.Process.Kill()
			<-ended
			if !well {
				t.Errorf("%s: it runs and does not answer", name)
			}
		}
		if now := n.pids(); fmt.Sprint(now) != fmt.Sprint(pids) {
			t.Errorf("%s: what runs changed:\n%v\n%v", name, pids, now)
		}
		if !well {
			// What it cannot mend by itself it must have left as it was.
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n.start()
		w.settled(30 * time.Second)
	}
}

// TestAddressChange: a node gets another address; the others find it, and pods
// reach each other again.
func TestAddressChange(t *testing.T) {
	w := newWorld(t, 3)
	w.write(map[string]string{"hello.yaml": fmt.Sprintf(helloYAML, 3)})
	w.commit("three")
	w.ready(w.nodes[0], "hello", 3, 40*time.Second)
	n := w.nodes[1]
	n.stop(syscall.SIGKILL)
	err := n.net.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, _ := netlink.ParseAddr(n.address + "/24")
		if err := netlink.AddrDel(link, old); err != nil {
			return err
		}
		addr, _ := netlink.ParseAddr("192.0.2.77/24")
		if err := netlink.AddrAdd(link, addr); err != nil {
			return err
		}
		_ = netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: []byte{192, 0, 2, 1}}) // it may have stayed
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.address = "192.0.2.77"
	begin := time.Now()
	n.start()
	w.settled(30 * time.Second)
	t.Logf("one fleet again %s after the start at another address", time.Since(begin).Round(10*time.Millisecond))
	for _, from := range w.nodes {
		seen := map[string]bool{}
		w.eventually(30*time.Second, from.name+" reaches pods of all nodes", func() (bool, string) {
			out, err := from.get("http://10.96.3.3/")
			if err == nil {
				seen[out[:strings.Index(out, ",")]] = true
			}
			return len(seen) >= 3, fmt.Sprint(seen, err, out)
		})
	}
}

// TestClonedState: a copy of a node's state folder is refused, and the node goes
// on.
func TestClonedState(t *testing.T) {
	w := newWorld(t, 2)
	site := w.sites[2]
	clone := &node{
		w: w, name: "n2", address: "192.0.2.99", net: site.net, port: "port9",
		state: filepath.Join(site.dir, "state"), run: filepath.Join(site.dir, "run"), namespace: "shoal-" + filepath.Base(site.dir),
	}
	w.plug(clone)
	if err := os.CopyFS(clone.state, os.DirFS(w.nodes[1].state)); err != nil {
		t.Fatal(err)
	}
	var err error
	if clone.log, err = os.Create(filepath.Join(site.dir, "daemon.log")); err != nil {
		t.Fatal(err)
	}
	clone.launch()
	defer func() {
		clone.stop(syscall.SIGTERM)
		if out, err := clone.shoal("reset"); err != nil {
			t.Errorf("reset of the copy: %v\n%s", err, out)
		}
	}()
	w.eventually(20*time.Second, "the copy says that it is one", func() (bool, string) {
		s, err := clone.status()
		return err == nil && strings.Contains(fmt.Sprint(s.Alarms), "state folder was copied"), fmt.Sprint(s.Alarms, err)
	})
	w.settled(10 * time.Second)
	for range 30 {
		time.Sleep(100 * time.Millisecond)
		if s, err := w.nodes[1].status(); err != nil || len(s.Alarms) > 0 || s.Heard > 3*time.Second {
			t.Fatalf("the node itself suffers: %+v, %v", s.Alarms, err)
		}
	}
}
