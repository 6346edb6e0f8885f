package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
)

// node returns the node of a name. "leader" and "follower" are found out.
func (f *Fleet) node(name string) *node {
	if name == "leader" || name == "follower" {
		leads := f.leader()
		for _, n := range f.living() {
			if (n.name == leads) == (name == "leader") {
				return n
			}
		}
	}
	for _, n := range f.nodes {
		if n.name == name {
			return n
		}
	}
	return nil
}

// leader returns the name of the leader, as the first node knows that has one.
func (f *Fleet) leader() string {
	for _, n := range f.living() {
		if s, err := n.status(); err == nil && s.Leader != "" && s.Quorate {
			return s.Leader
		}
	}
	return ""
}

// command is one line of a script.
type command struct {
	usage string
	run   func(f *Fleet, args []string) (string, error)
}

// commands of scripts, by their first word.
var commands = map[string]command{
	"commit":    {"commit FILE... [-FILE...]: push files of the scenario, without those with a minus", commitFiles},
	"crash":     {"crash NODE...: the machines die without a word", each(func(f *Fleet, n *node) { f.Crash(n) })},
	"kill":      {"kill NODE...: the daemons die, containers run on", each(func(f *Fleet, n *node) { f.Kill(n) })},
	"stop":      {"stop NODE...: the daemons end as asked", each(func(f *Fleet, n *node) { f.Stop(n) })},
	"start":     {"start NODE...", each(func(f *Fleet, n *node) { f.Start(n) })},
	"stall":     {"stall NODE...: hold back everything from and to them", each(func(f *Fleet, n *node) { f.Stall(n) })},
	"resume":    {"resume NODE...", each(func(f *Fleet, n *node) { f.Resume(n) })},
	"split":     {"split NODE,NODE... NODE...: parts that do not hear of each other", split},
	"cut":       {"cut FROM TO: lose what goes this way", cutLink},
	"heal":      {"heal: one network again", func(f *Fleet, _ []string) (string, error) { f.Heal(); return "", nil }},
	"loss":      {"loss SHARE: of packets", loss},
	"git":       {"git away [NODE...]|back: the Git host, from these nodes or all", gitHost},
	"serve":     {"serve IMAGE...: the registry has them", serveImages},
	"registry":  {"registry away|back: for all nodes", registry},
	"fail":      {"fail POD...: their containers end with an error", failPods},
	"env":       {"env NAME: what it is for each pod that runs", func(f *Fleet, args []string) (string, error) { return f.env(args), nil }},
	"fill":      {"fill NODE...: their disks take no commit", each(func(f *Fleet, n *node) { n.mirror.fill(true) })},
	"free":      {"free NODE...: there is space again", each(func(f *Fleet, n *node) { n.mirror.fill(false) })},
	"label":     {"label NODE KEY=VALUE|KEY-...: in the file of its settings", mark(func(n *node) *[]string { return &n.labels })},
	"taint":     {"taint NODE KEY=VALUE:EFFECT|KEY-...: in the file of its settings", mark(func(n *node) *[]string { return &n.taints })},
	"hide":      {"hide NODE...: their containers are out of reach for their daemons", each(func(f *Fleet, n *node) { f.referee.disturb(); n.engine.SetDown(true) })},
	"reveal":    {"reveal NODE...: and within reach again", each(func(f *Fleet, n *node) { f.referee.disturb(); n.engine.SetDown(false) })},
	"drain":     {"drain NODE", each(func(f *Fleet, n *node) { f.ask(n, "/drain", map[string]string{"on": "true"}) })},
	"undrain":   {"undrain NODE", each(func(f *Fleet, n *node) { f.ask(n, "/drain", map[string]string{"on": "false"}) })},
	"remove":    {"remove NODE: from the fleet, for good", each(remove)},
	"recover":   {"recover NODE: it goes on without the others that vote", each(func(f *Fleet, n *node) { f.Recover(n) })},
	"wait":      {"wait DURATION", waitFor},
	"whole":     {"whole LIMIT: all living nodes are one fleet within it", untilWhole},
	"converged": {"converged LIMIT: what runs is what the newest commit says", untilConverged},
	"same":      {"same LIMIT NODE=COUNT...: so many pods run on the nodes", onNodes},
	"alarm":     {"alarm LIMIT TEXT...: every living node says so in its status within it", untilAlarm},
	"show":      {"show: what runs, in a table", func(f *Fleet, _ []string) (string, error) { return f.table(), nil }},
}

// Run runs a script and returns what it printed. files are those that it may
// commit.
func (f *Fleet) Run(script string, files map[string]string) (string, error) {
	var out strings.Builder
	for number, line := range slices.Collect(strings.SplitSeq(script, "\n")) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		c, known := commands[words[0]]
		if !known {
			return "", fmt.Errorf("line %d: %q is none of %v", number+1, words[0], slices.Sorted(maps.Keys(commands)))
		}
		f.note("> %s", line)
		args := words[1:]
		if words[0] == "commit" {
			args = nil
			for _, name := range words[1:] {
				args = append(args, name)
				if _, there := files[name]; !strings.HasPrefix(name, "-") && !there {
					return "", fmt.Errorf("line %d: the scenario has no file %q", number+1, name)
				}
				args = append(args, files[name])
			}
		}
		text, err := c.run(f, args)
		if err != nil {
			return "", fmt.Errorf("line %d: %s: %w (%s)", number+1, line, err, c.usage)
		}
		if fmt.Fprintf(&out, "> %s\n%s", line, text); len(f.referee.verdict()) > 0 {
			return out.String(), nil
		}
	}
	return out.String(), nil
}

// serveImages puts images into the registry.
func serveImages(f *Fleet, args []string) (string, error) {
	for _, n := range f.nodes {
		for _, ref := range args {
			n.engine.Serve(ref)
		}
	}
	return "", nil
}

// registry lets the registry answer, or not.
func registry(f *Fleet, args []string) (string, error) {
	if len(args) != 1 || args[0] != "away" && args[0] != "back" {
		return "", errors.New("it is away or back")
	}
	for _, n := range f.nodes {
		n.engine.SetRegistry(args[0] == "back")
	}
	return "", nil
}

func each(what func(f *Fleet, n *node)) func(f *Fleet, args []string) (string, error) {
	return func(f *Fleet, args []string) (string, error) {
		if len(args) == 0 {
			return "", errors.New("no node is named")
		}
		for _, name := range args {
			n := f.node(name)
			if n == nil {
				return "", fmt.Errorf("there is no node %q", name)
			}
			what(f, n)
		}
		return "", nil
	}
}

// commitFiles takes pairs of names and contents.
func commitFiles(f *Fleet, args []string) (string, error) {
	for i := 0; i < len(args); i += 2 {
		if name, without := strings.CutPrefix(args[i], "-"); without {
			delete(f.files, name)
		} else {
			f.files[args[i]] = args[i+1]
		}
	}
	_, err := f.Commit()
	return "", err
}

// Commit pushes the files as they are now.
func (f *Fleet) Commit() (api.Commit, error) {
	f.referee.committed()
	return f.git.push(maps.Clone(f.files), time.Now())
}

// Crash ends a machine without a word. This and what follows is what scripts say.
func (f *Fleet) Crash(n *node) {
	if n.down {
		return
	}
	if n.removed {
		f.referee.disturb() // nobody waits for it
	} else {
		f.referee.fault(true)
	}
	n.down = true
	n.crash()
}

// Kill ends the daemon. For as long as it takes to start it again nothing is
// moved, so that this is no reason to end a pod.
func (f *Fleet) Kill(n *node) { n.kill(); n.killed = time.Now() }

// Stop ends the daemon as systemd does.
func (f *Fleet) Stop(n *node) { n.stop(); n.killed = time.Now() }

// brief is for how long a daemon may be away before its pods are moved.
const brief = 2 * time.Second

// Start starts the daemon.
func (f *Fleet) Start(n *node) {
	if n.life != nil {
		return
	}
	if n.down {
		n.down = false
		f.referee.fault(false)
	} else if time.Since(n.killed) > brief {
		f.referee.disturb()
	}
	n.start()
	n.joined = time.Now()
}

// Stall holds back everything from and to a node.
func (f *Fleet) Stall(n *node) { f.net.Stall(n.host); n.stalled = time.Now() }

// Resume ends it.
func (f *Fleet) Resume(n *node) {
	f.net.Resume(n.host)
	if !n.stalled.IsZero() && time.Since(n.stalled) > brief {
		f.referee.disturb()
	}
	n.stalled, n.joined = time.Time{}, time.Now()
}

// Heal makes the network one again.
func (f *Fleet) Heal() {
	f.net.Heal()
	for _, n := range f.nodes {
		if n.apart {
			n.apart, n.joined = false, time.Now()
			f.referee.fault(false)
		}
	}
}

func (f *Fleet) separate(n *node) {
	if !n.apart {
		n.apart = true
		f.referee.fault(true)
	}
}

func split(f *Fleet, args []string) (string, error) {
	var parts [][]string
	for _, part := range args {
		var hosts []string
		for name := range strings.SplitSeq(part, ",") {
			n := f.node(name)
			if n == nil {
				return "", fmt.Errorf("there is no node %q", name)
			}
			hosts = append(hosts, n.host)
			f.separate(n)
		}
		parts = append(parts, hosts)
	}
	f.net.Split(parts...)
	return "", nil
}

func cutLink(f *Fleet, args []string) (string, error) {
	if len(args) != 2 || f.node(args[0]) == nil || f.node(args[1]) == nil {
		return "", errors.New("two nodes are needed")
	}
	from, to := f.node(args[0]), f.node(args[1])
	f.separate(from)
	f.separate(to)
	f.net.Cut(from.host, to.host)
	return "", nil
}

func loss(f *Fleet, args []string) (string, error) {
	share, err := strconv.ParseFloat(strings.Join(args, " "), 64)
	if err == nil {
		f.net.SetLoss(share)
	}
	return "", err
}

func gitHost(f *Fleet, args []string) (string, error) {
	switch {
	case len(args) == 1 && args[0] == "back":
		f.git.cut()
	case len(args) == 1 && args[0] == "away":
		f.git.cut("*")
	case len(args) > 1 && args[0] == "away":
		var hosts []string
		for _, name := range args[1:] {
			if n := f.node(name); n != nil {
				hosts = append(hosts, n.host)
			}
		}
		f.git.cut(hosts...)
	default:
		return "", errors.New("away or back")
	}
	return "", nil
}

// ask has a node's daemon do something.
func (f *Fleet) ask(n *node, path string, form map[string]string) {
	f.referee.disturb()
	if _, err := n.client().Command(f.t.Context(), path, form); err != nil {
		f.referee.accuse("%s%s: %v", n.name, path, err)
	}
}

func remove(f *Fleet, n *node) {
	if err := f.Remove(n); err != nil {
		f.referee.accuse("remove %s: %v", n.name, err)
	}
}

// Remove removes a node from the fleet, for good, as another one is told. An error
// does not say that it was not removed.
func (f *Fleet) Remove(n *node) error {
	f.referee.disturb()
	err := errors.New("no other node is there")
	for _, other := range f.living() {
		if other == n {
			continue
		}
		if _, err = other.client().Command(f.t.Context(), "/remove", map[string]string{"node": n.name}); err == nil {
			break // one that does not vote sends people to others
		}
	}
	if err == nil && !n.removed {
		n.removed = true
		if n.down {
			f.referee.fault(false)
		}
	}
	return err
}

// Recover lets a node go on without the others that vote, which are gone.
func (f *Fleet) Recover(n *node) {
	f.referee.disturb()
	s, err := n.status()
	if err != nil {
		f.referee.accuse("recover on %s: %v", n.name, err)
		return
	}
	lost := slices.DeleteFunc(slices.Clone(s.Voters), func(name string) bool { return name == n.name })
	plan, err := daemon.PlanRecovery(n.config(), lost)
	if err == nil {
		err = plan.Do()
	}
	if err != nil {
		f.referee.accuse("recover on %s without %v: %v", n.name, lost, err)
		return
	}
	f.within(15*time.Second, n.name+" leads by itself", func() error {
		s, err := n.status()
		if err == nil && (!s.Quorate || s.Leader != n.name || s.Epoch != plan.Epoch) {
			err = fmt.Errorf("its leader is %q, quorate %v, epoch %d", s.Leader, s.Quorate, s.Epoch)
		}
		return err
	})
}

func duration(args []string) (time.Duration, error) {
	if len(args) == 0 {
		return 0, errors.New("no duration is given")
	}
	return time.ParseDuration(args[0])
}

func waitFor(f *Fleet, args []string) (string, error) {
	d, err := duration(args)
	if err == nil {
		f.pass(d)
	}
	return "", err
}

func untilWhole(f *Fleet, args []string) (string, error) {
	d, err := duration(args)
	if err == nil {
		f.note("one fleet after %s", f.within(d, "the nodes are one fleet", f.whole))
	}
	return "", err
}

func untilConverged(f *Fleet, args []string) (string, error) {
	d, err := duration(args)
	if err == nil {
		f.note("converged after %s", f.within(d, "what runs is what the newest commit says", f.converged))
	}
	return "", err
}

func untilAlarm(f *Fleet, args []string) (string, error) {
	d, err := duration(args)
	if err != nil {
		return "", err
	}
	text := strings.Join(args[1:], " ")
	f.within(d, "every node says: "+text, func() error {
		for _, n := range f.living() {
			s, err := n.status()
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(s.Alarms, func(a string) bool { return strings.Contains(a, text) }) {
				return fmt.Errorf("%s says %q", n.name, s.Alarms)
			}
		}
		return nil
	})
	return "", nil
}

func onNodes(f *Fleet, args []string) (string, error) {
	d, err := duration(args)
	if err != nil {
		return "", err
	}
	f.within(d, "pods are on "+strings.Join(args[1:], " "), func() error {
		for _, pair := range args[1:] {
			name, count, _ := strings.Cut(pair, "=")
			n := f.node(name)
			if n == nil {
				return fmt.Errorf("there is no node %q", name)
			}
			if got := fmt.Sprint(len(n.containers())); got != count {
				return fmt.Errorf("%s runs %s containers", name, got)
			}
		}
		return nil
	})
	return "", nil
}

// failPods ends the containers of pods, by identity.
func failPods(f *Fleet, args []string) (string, error) {
	f.referee.disturb()
	for _, id := range args {
		found := false
		for _, n := range f.nodes {
			for _, c := range n.containers() {
				if c.Assignment.Pod.Identity.String() == id {
					n.engine.Crash(c.ID, 1)
					found = true
				}
			}
		}
		if !found {
			return "", fmt.Errorf("no pod %s runs", id)
		}
	}
	return "", nil
}

// env shows a variable of every container that runs, by pod.
func (f *Fleet) env(names []string) string {
	var rows []string
	for _, n := range f.nodes {
		for _, c := range n.containers() {
			for _, v := range n.engine.Env(c.ID) {
				if name, value, _ := strings.Cut(v, "="); slices.Contains(names, name) {
					rows = append(rows, fmt.Sprintf("%-28s %s, attempt %d\n", c.Assignment.Pod.Identity, value, c.Attempt))
				}
			}
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

// table shows what runs: for each workload how many pods, and of which commit
// their templates are.
func (f *Fleet) table() string {
	rows := map[string]map[string]bool{}
	for _, n := range f.nodes {
		for _, c := range n.containers() {
			row := c.Assignment.Pod.Workload().String()
			if rows[row] == nil {
				rows[row] = map[string]bool{}
			}
			rows[row][c.Assignment.Pod.Instance] = true
		}
	}
	var out strings.Builder
	for _, row := range sortedKeys(rows) {
		fmt.Fprintf(&out, "%-28s %d\n", row, len(rows[row]))
	}
	return out.String()
}
