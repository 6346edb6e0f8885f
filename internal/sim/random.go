package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// Random makes a fleet go through random faults and commits, then asks it to be
// whole and to have converged. The same seed gives the same faults.
type Random struct {
	Seed   uint64
	Faults int
}

// Run runs it on a new fleet. It must be called in a bubble of testing/synctest.
func (r Random) Run(f *Fleet) {
	w := walk{f: f, random: rand.New(rand.NewPCG(r.Seed, 2))} //nolint:gosec // it must be the same each time
	f.files["web.yaml"] = deployment("web", 2+w.random.IntN(5), 1, false)
	f.files["db.yaml"] = deployment("db", 1, 1, true)
	f.files["cache.yaml"] = deployment("cache", 1, 1, true)
	f.files["kv.yaml"] = statefulSet("kv", 2, 1)
	if _, err := f.Commit(); err != nil {
		f.referee.accuse("%v", err)
		return
	}
	f.within(time.Minute, "the first commit runs", f.converged)
	for range r.Faults {
		w.step()
		if len(f.referee.verdict()) > 0 {
			return
		}
	}
	w.mend()
	f.note("everything is mended")
	f.note("one fleet after %s", f.within(15*time.Second, "the nodes are one fleet", f.whole))
	// One that came and went too often, or that was away, is left alone for a
	// while before surplus pods go.
	f.note("converged after %s", f.within(60*time.Second, "what runs is what the newest commit says", f.converged))
	f.pass(10 * time.Second)
}

// deployment writes a Deployment with a Service.
func deployment(name string, replicas, version int, exclusive bool) string {
	strategy, annotations := "{rollingUpdate: {maxUnavailable: 1, maxSurge: 1}}", "{}"
	if exclusive {
		strategy, annotations = "{type: Recreate}", `{fleet.shoal.dev/exclusive: "true"}`
	}
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, annotations: %[5]s}
spec:
  replicas: %[2]d
  strategy: %[4]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: %[6]s, command: [sleep, "1"], env: [{name: VERSION, value: "%[3]d"}]}]
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec: {selector: {app: %[1]s}, ports: [{port: 80}]}
`, name, replicas, version, strategy, annotations, image)
}

// statefulSet writes a StatefulSet whose pods have volumes.
func statefulSet(name string, replicas, version int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: StatefulSet
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  serviceName: %[1]s
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: c, image: %[4]s, command: [sleep, "1"], env: [{name: VERSION, value: "%[3]d"}], volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]
`, name, replicas, version, image)
}

// walk is a way through random faults.
type walk struct {
	f         *Fleet
	random    *rand.Rand
	version   int
	leaving   *node // to be removed
	recovered bool
}

// some returns one of the nodes.
func (w *walk) some() *node {
	for {
		if n := w.f.nodes[w.random.IntN(len(w.f.nodes))]; !n.removed {
			return n
		}
	}
}

// step does one thing and lets some time pass.
func (w *walk) step() {
	f := w.f
	n := w.some()
	pause := time.Duration(w.random.IntN(20_000)) * time.Millisecond
	switch w.random.IntN(19) {
	case 0:
		f.note("> crash %s", n.name)
		f.Crash(n)
	case 1:
		f.note("> kill %s for a moment", n.name)
		f.Kill(n)
		f.pass(time.Duration(w.random.IntN(3000)) * time.Millisecond)
		f.Start(n)
	case 2:
		f.note("> kill %s", n.name)
		f.Kill(n)
	case 3, 4:
		f.note("> start %s", n.name)
		f.Start(n)
	case 5:
		f.note("> stall %s", n.name)
		f.Stall(n)
		f.pass(time.Duration(w.random.IntN(8000)) * time.Millisecond)
		f.note("> resume %s", n.name)
		f.Resume(n)
	case 6:
		w.split()
	case 7:
		to := w.some()
		if to == n {
			break
		}
		f.note("> cut %s %s", n.name, to.name)
		_, _ = cutLink(f, []string{n.name, to.name}) // both are there
	case 8:
		f.note("> heal")
		f.Heal()
		f.net.SetLoss(0)
		f.git.cut()
	case 9:
		f.note("> loss")
		f.net.SetLoss(w.random.Float64() / 4)
	case 10:
		w.commit()
	case 12:
		f.note("> stop %s for a moment", n.name)
		f.Stop(n)
		f.pass(time.Duration(w.random.IntN(3000)) * time.Millisecond)
		f.Start(n)
	case 13:
		if n.life != nil {
			f.note("> drain %s", n.name)
			f.ask(n, "/drain", map[string]string{"on": fmt.Sprint(w.random.IntN(2) == 0)})
		}
	case 14:
		hosts := []string{"*", n.host}[w.random.IntN(2):]
		f.note("> git is away for %v", hosts[:1])
		f.git.cut(hosts[0])
	case 15:
		f.note("> fill %s", n.name)
		n.mirror.fill(true)
	case 16:
		f.note("> free %s", n.name)
		n.mirror.fill(false)
	case 17:
		w.remove(n)
	case 18:
		w.recover(n)
	case 11:
		if w.random.IntN(4) == 0 {
			f.note("> power off")
			for _, n := range f.nodes {
				f.Crash(n)
			}
			pause = time.Second
		}
	}
	f.pass(pause)
}

// remove removes a node, of five or more, and then it is switched off. Nobody
// does that twice in a while.
func (w *walk) remove(n *node) {
	if w.leaving == nil && len(w.f.nodes) >= 5 {
		w.leaving = n
	}
	if w.leaving == nil || w.leaving.removed {
		return
	}
	err := w.f.Remove(w.leaving)
	w.f.note("> remove %s: %v", w.leaving.name, err)
	if err != nil {
		return // and is tried again
	}
	w.f.pass(time.Duration(w.random.IntN(20_000)) * time.Millisecond)
	w.f.Crash(w.leaving)
}

// recover makes one node go on alone, when all the others are gone. They come
// back later. A node that is being removed might have been the one that knew.
func (w *walk) recover(n *node) {
	f := w.f
	if w.recovered || w.leaving != nil || w.random.IntN(2) == 0 {
		return
	}
	w.recovered = true
	w.peace()
	f.within(30*time.Second, "the nodes are one fleet before it loses its voters", f.whole)
	f.note("> lose all but %s", n.name)
	for _, other := range f.nodes {
		if other != n {
			f.Crash(other)
		}
	}
	f.pass(time.Duration(4_000+w.random.IntN(16_000)) * time.Millisecond)
	if s, err := n.status(); err == nil && s.Quorate && s.Leader == n.name {
		return // it alone voted
	}
	f.note("> recover %s", n.name)
	f.Recover(n)
}

// split makes two parts, or three.
func (w *walk) split() {
	parts := make([][]string, 2+w.random.IntN(2))
	for _, n := range w.f.nodes {
		i := w.random.IntN(len(parts))
		parts[i] = append(parts[i], n.name)
	}
	var args []string
	for _, p := range parts {
		if len(p) > 0 {
			args = append(args, strings.Join(p, ","))
		}
	}
	w.f.note("> split %s", strings.Join(args, " "))
	_, _ = split(w.f, args) // all are there
}

func (w *walk) commit() {
	w.version++
	name := []string{"web", "db", "cache"}[w.random.IntN(3)]
	replicas := 1
	if name == "web" {
		replicas = 1 + w.random.IntN(6)
	}
	w.f.note("> commit %s: %d of version %d", name, replicas, w.version+1)
	w.f.files[name+".yaml"] = deployment(name, replicas, w.version+1, name != "web")
	if w.version%3 == 0 {
		w.f.files["kv.yaml"] = statefulSet("kv", 1+w.version%4, w.version+1)
	}
	if _, err := w.f.Commit(); err != nil {
		w.f.referee.accuse("%v", err)
	}
}

// peace ends all faults.
func (w *walk) peace() {
	w.f.Heal()
	w.f.net.SetLoss(0)
	w.f.git.cut()
	for _, n := range w.f.nodes {
		n.mirror.fill(false)
		w.f.Resume(n)
		if !n.removed {
			w.f.Start(n)
		}
	}
}

// mend ends all faults, and what was begun.
func (w *walk) mend() {
	w.peace()
	for _, n := range w.f.nodes {
		if n.removed {
			continue
		}
		w.f.within(10*time.Second, n.name+" takes pods again", func() error {
			_, err := n.client().Command(w.f.t.Context(), "/drain", map[string]string{"on": "false"})
			return err
		})
	}
	if w.leaving != nil && !w.leaving.removed {
		w.f.within(30*time.Second, w.leaving.name+" is removed", func() error { return w.f.Remove(w.leaving) })
		w.f.Crash(w.leaving)
	}
}
