package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/internal/scenario"
)

// TestScenarios runs every script in testdata. A script is a txtar archive: its
// comment says what it shows, "script" holds one command a line, and "want" the
// transcript. Commands:
//
//	node NAME [cpu=N] [pods=N] [taint=KEY] [disk=Q] [zone=Z]
//	git KIND NAME rev=R [replicas=N] [surge=X] [unavailable=X] [cpu=Q] ...
//	rm KIND NAME                 take it out of Git
//	unknown | known              whether the desired state can be read
//	schedule                     decide once and print the decision
//	obey                         the nodes start and stop what was decided
//	ready | notready OWNER [R]   pods of an owner, of one revision
//	end OWNER                    its pods fail for good
//	stopping OWNER               their nodes have begun to stop its pods
//	wait DURATION
//	settle                       go on until nothing changes, and print
//	rollout OWNER                print the facts of a Deployment's rollout
//	forget                       lose all decisions and facts, keep what runs
//	lost | left | suspect | back NAME   what the leader believes of a node
//	unstable | stable NAME       a node that comes and goes
//	drain | undrain NAME
//	silent | reports NAME        whether a node has said what it runs
//	acting | quorate             whether the leader has a quorum
//	elected                      the leader was elected again
//	slow | fast                  whether consensus grants claims now
//	release                      claims of lost nodes are released
//	checked                      the leader made sure it is not cut off
//	claims                       print who holds them
//	grant                        what was asked for last
//	unready NAME                 no pod of a node is ready
//	rebooted NAME                a node lost what it ran
//	rmnode NAME                  there is no record of a node any more
//	succeed | fail OWNER [SLOT] [CODE]  its pods end for good, all or those of a slot
//	restart OWNER SLOT N         the containers of a pod were restarted N times
//	fenced OWNER                 its pods were ended because their lease ran out
//	job NAME                     print what is known of a Job, or of the runs of a CronJob
//	events                       print what has happened to Jobs and rollouts since the last time
//	fleet [onFailedRollout=X] [rebalance=X]  the settings of the fleet
//	deployment NAME              print the status of a Deployment, and alarms about rollouts
//	lostcontainers OWNER         its nodes know nothing any more of its pods that ended
//	plan                         print what would come of it
//	base                         what is in Git now is what a change begins with
//	change                       print which budgets and quotas a change breaks
//	taint | untaint NAME KEY     with the effect NoExecute
//	pdb NAME [app=OWNER] [min=X] [max=X] [always=true] ...  a PodDisruptionBudget
//	pdbs                         print the status of the PodDisruptionBudgets
//	hpa NAME target=KIND/NAME ...  a HorizontalPodAutoscaler, see commitAutoscaler
//	use OWNER [each=MILLI] [shared=MILLI] [memory=MIB] [only=N]  what its pods use
//	usage none | old | new       what is told of that
//	go DURATION                  live on, and print how autoscalers decide
//	hpas                         print the status of the HorizontalPodAutoscalers
//	hindered                     print why drains wait
//	set NAME                     print the status of a StatefulSet
//	volumes                      print what is known of volumes
//	delete                       the nodes delete the volumes that are to go
//	removed NAME                 a node was removed from the fleet
//	recovered KIND               the ledger has lost claims
//	live DURATION                go on as the leader would, and print what is decided when
//	notes                        print what objects say is not done of what they ask for
//	quiet                        schedule and settle print nothing from now on
//	summary                      print how many pods of each workload are where
func TestScenarios(t *testing.T) {
	scenario.Run(t, "testdata/*.txtar", func(t *testing.T, c scenario.Case) string { return transcript(t, c.Text("script")) })
}

func transcript(t *testing.T, script string) string {
	m := newModel()
	var out strings.Builder
	for line := range strings.SplitSeq(script, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		fmt.Fprintf(&out, "> %s\n", line)
		text, err := m.run(words[0], words[1:])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out.WriteString(text)
	}
	return out.String()
}

func (m *model) run(command string, args []string) (string, error) {
	arg := func(i int) string {
		if i < len(args) {
			return args[i]
		}
		return ""
	}
	switch command {
	case "node":
		options := pairs(args[1:])
		m.addNode(arg(0), number(options["cpu"], 4), number(options["pods"], 110), options["taint"])
		if zone := options["zone"]; zone != "" {
			m.nodes[arg(0)].Labels["zone"] = zone
		}
		if disk := options["disk"]; disk != "" {
			m.nodes[arg(0)].Allocatable[corev1.ResourceEphemeralStorage] = resource.MustParse(disk)
		}
	case "git":
		m.commitSpec(parseSpec(args))
	case "rm":
		delete(m.objects, arg(0)+"/"+arg(1))
		m.commit++
	case "unknown", "known":
		m.known = command == "known"
	case "schedule":
		wake := m.schedule()
		text := m.describe()
		if m.quiet {
			text = ""
		}
		if !wake.IsZero() {
			text += fmt.Sprintf("look again in %s\n", wake.Sub(m.now))
		}
		return text, nil
	case "obey":
		m.obey()
	case "ready", "notready":
		m.ready(arg(0), arg(1), command == "ready")
	case "end", "evict":
		for instance, s := range m.states {
			if s.Pod.Owner == arg(0) {
				s.Phase, s.Ready = "Failed", false
				if command == "evict" {
					s.Reason, s.Started = "Evicted", m.now
				}
				m.states[instance] = s
			}
		}
	case "stopping":
		for instance, s := range m.states {
			if s.Pod.Owner == arg(0) {
				s.Stopping = true
				m.states[instance] = s
			}
		}
	case "wait":
		d, err := time.ParseDuration(arg(0))
		m.now = m.now.Add(d)
		return "", err
	case "settle":
		err := m.settle(50)
		if m.quiet {
			return "", err
		}
		return m.describe(), err
	case "rollout":
		r := m.facts.Rollouts["ns/Deployment/"+arg(0)]
		text := fmt.Sprintf("revision %s complete=%v failed=%v\n", r.Revision, r.Complete, r.Failed)
		for _, h := range r.History {
			text += fmt.Sprintf("  %d %s at %s\n", h.Number, h.Revision, h.Commit)
		}
		return text, nil
	case "forget":
		m.set, m.facts = newModel().set, newModel().facts
	default:
		if text, known := m.runJobs(command, args); known {
			return text, nil
		}
		if text, known := m.runSettings(command, args); known {
			return text, nil
		}
		if text, known := m.runPlans(command); known {
			return text, nil
		}
		if text, known := m.runQuotas(command, args); known {
			return text, nil
		}
		if text, known := m.runSets(command, arg(0)); known {
			return text, nil
		}
		if text, known := m.runBudgets(command, args); known {
			return text, nil
		}
		if text, known := m.runAutoscalers(command, args); known {
			return text, nil
		}
		if text, known, err := m.runBalance(command, args); known {
			return text, err
		}
		return m.runFleet(command, arg(0))
	}
	return "", nil
}

// runFleet runs the commands that concern nodes and the leader.
func (m *model) runFleet(command, name string) (string, error) {
	statuses := map[string]api.NodeStatus{
		"lost": api.NodeLost, "left": api.NodeLeft, "suspect": api.NodeSuspect, "back": api.NodeAlive,
	}
	switch command {
	case "lost", "left", "suspect", "back":
		m.judge(name, statuses[command])
	case "unstable", "stable":
		h := m.health[name]
		h.Node, h.Unstable = name, command == "unstable"
		m.health[name] = h
	case "drain", "undrain":
		n := m.nodes[name]
		n.Draining = command == "drain"
		m.nodes[name] = n
	case "silent", "reports":
		m.silent[name] = command == "silent"
	case "acting", "quorate":
		m.acting = command == "acting"
	case "elected":
		m.term++
	case "slow", "fast":
		m.slow = command == "slow"
	case "release":
		m.release()
	case "checked":
		m.checked = m.now
	case "grant":
		m.claims = Grant(m.claims, m.decide().Claims)
	case "unready":
		for instance, s := range m.states {
			if m.where[instance] == name {
				s.Ready = false
				m.states[instance] = s
			}
		}
	case "rebooted":
		for instance := range m.states {
			if m.where[instance] == name {
				delete(m.states, instance)
			}
		}
		m.stale[name] = nil
	case "rmnode":
		for instance := range m.states {
			if m.where[instance] == name {
				delete(m.states, instance)
			}
		}
		delete(m.nodes, name)
	case "quiet":
		m.quiet = true
	case "notes":
		var out strings.Builder
		for _, object := range m.shown() {
			note := object.GetAnnotations()[noteAnnotation]
			if d, ok := object.(*appsv1.Deployment); ok && len(d.Status.Conditions) > 2 {
				note = d.Status.Conditions[2].Message
			}
			if note != "" {
				fmt.Fprintf(&out, "%s: %s\n", object.GetName(), note)
			}
		}
		return out.String(), nil
	case "summary":
		return m.summary(), nil
	case "claims":
		var out strings.Builder
		for _, id := range slices.Sorted(maps.Keys(m.claims)) {
			holder := m.claims[id]
			fmt.Fprintf(&out, "%s: claim %d of %s%s\n", id, holder.Claim.Index, holder.Node, map[bool]string{true: ", released"}[holder.Released])
		}
		return out.String(), nil
	default:
		return "", fmt.Errorf("unknown command %q", command)
	}
	return "", nil
}

// summary counts pods by workload and node, or by why they wait.
func (m *model) summary() string {
	count := map[string]int{}
	for _, a := range m.set.Pods {
		where := a.Node
		if m.away(a.Node) {
			where += ", lost"
		}
		count[a.Pod.Workload().String()+" on "+where]++
	}
	for _, u := range m.set.Pending {
		count[u.Pod.Workload().String()+" "+u.Reason]++
	}
	var out strings.Builder
	for _, line := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(&out, "%2d %s\n", count[line], line)
	}
	return out.String()
}

func parseSpec(args []string) spec {
	o := pairs(args[2:])
	return spec{
		kind: args[0], name: args[1], revision: o["rev"], replicas: int32(number(o["replicas"], 1)), surge: o["surge"], unavailable: o["unavailable"],
		exclusive: o["exclusive"] == "true", hostname: o["hostname"], priority: int32(number(o["priority"], 0)),
		recreate: o["strategy"] == "Recreate", paused: o["paused"] == "true", minReady: int32(number(o["minReady"], 0)),
		deadline: int32(number(o["deadline"], 0)), cpu: o["cpu"], hostPort: int32(number(o["hostPort"], 0)), history: int32(number(o["history"], 10)),
		more: o,
	}
}

func pairs(args []string) map[string]string {
	out := map[string]string{}
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		out[key] = value
	}
	return out
}

func number(text string, or int64) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return or
	}
	return n
}
