package scheduler

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/api"
)

// randomJob draws what a spec says of Jobs and CronJobs; the rest ignore it.
func randomJob(t *rapid.T) map[string]string {
	out := map[string]string{
		"completions": strconv.Itoa(rapid.IntRange(0, 5).Draw(t, "completions")), "parallelism": strconv.Itoa(rapid.IntRange(0, 4).Draw(t, "parallelism")),
		"backoff": strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "backoff")), "schedule": rapid.SampledFrom([]string{"*_*_*_*_*", "*/7_*_*_*_*", "0_0_31_2_*", "@every_90s"}).Draw(t, "schedule"),
		"policy": rapid.SampledFrom([]string{"Allow", "Forbid", "Replace"}).Draw(t, "policy"), "keep": strconv.Itoa(rapid.IntRange(0, 2).Draw(t, "keep")),
	}
	maybe := func(option string, values ...string) {
		if value := rapid.SampledFrom(append(values, "")).Draw(t, option); value != "" {
			out[option] = value
		}
	}
	maybe("mode", "Indexed")
	maybe("ttl", "0", "30")
	maybe("active", "40")
	maybe("suspend", "true")
	maybe("replace", "Failed")
	maybe("disruption", "Count", "FailJob", "Ignore")
	maybe("exit", "FailJob:42", "Ignore:42")
	maybe("starting", "30")
	maybe("halt", "true")
	if out["mode"] != "" {
		maybe("perIndex", "0", "1")
		maybe("maxFailed", "1")
		maybe("success", "0-1:1", ":2")
	} else if rapid.Bool().Draw(t, "queue") {
		delete(out, "completions")
	}
	if out["disruption"] != "" || out["exit"] != "" {
		out["replace"] = "Failed"
	}
	return out
}

// jobWorld is a fleet that does Jobs, and what was seen of them.
type jobWorld struct {
	*model
	done map[string]indexes // by run and revision: what was ever done
	over map[string]api.JobEnd
}

func (w *jobWorld) step(t *rapid.T) {
	owner := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "owner")
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0:
		s := randomSpec(t)
		s.kind, s.name = rapid.SampledFrom([]string{"Job", "CronJob"}).Draw(t, "jobKind"), owner
		delete(s.more, "pvc") // which may be there or not
		s.revision += s.more["mode"] + s.more["completions"]
		w.commitSpec(s)
	case 1, 2:
		w.obey()
	case 3:
		w.endPods(owner, strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "index")), 0, "")
		w.endPods(owner, "p"+strconv.Itoa(rapid.IntRange(0, 3).Draw(t, "piece")), 0, "")
	case 4:
		w.endPods(owner, "", int32(rapid.SampledFrom([]int{0, 1, 42}).Draw(t, "code")), "")
	case 5:
		w.judge("n1", rapid.SampledFrom([]api.NodeStatus{api.NodeLost, api.NodeAlive}).Draw(t, "status"))
	case 6:
		n := w.nodes["n2"]
		n.Draining = !n.Draining
		w.nodes["n2"] = n
	case 7:
		w.now = w.now.Add(time.Duration(rapid.IntRange(-100, 400).Draw(t, "seconds")) * time.Second)
	case 8:
		w.release()
	case 9:
		w.endPods(owner, "", 137, endedByFence)
	}
	w.now = w.now.Add(time.Second)
}

// look checks what holds after every decision.
func (w *jobWorld) look(t *rapid.T) {
	if err := w.checkJobs(); err != nil {
		t.Fatalf("%v:\n%s", err, w.describe())
	}
	see := func(key string, run api.JobRun) {
		key += "@" + run.Revision + run.Began.String()
		done := parseIndexes(run.Done, math.MaxInt)
		if before := w.done[key]; run.Spec != nil && before.common(done) != before.count() {
			t.Fatalf("%s had done %s and now %s", key, before, done)
		}
		w.done[key] = done
		if end, over := w.over[key]; over && end != run.End {
			t.Fatalf("%s had ended with %+v and now with %+v", key, end, run.End)
		}
		if run.Finished() {
			w.over[key] = run.End
		}
		if done.common(parseIndexes(run.GivenUp, math.MaxInt)) > 0 {
			t.Fatalf("%s has done %s and given up %s", key, run.Done, run.GivenUp)
		}
	}
	for key, run := range w.facts.Jobs {
		see(key, run)
	}
	for key, cron := range w.facts.CronJobs {
		for _, run := range cron.Runs {
			see(fmt.Sprint(key, run.Time), run)
		}
	}
}

// TestJobsKeepTheirPromises: whatever happens, no piece of work succeeds twice,
// no more pods run at a time than are allowed, and what is over stays over.
func TestJobsKeepTheirPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := jobWorld{newModel(), map[string]indexes{}, map[string]api.JobEnd{}}
		for _, name := range []string{"n1", "n2", "n3"} {
			w.addNode(name, 8, 20, "")
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			w.step(t)
			w.schedule()
			w.look(t)
			before := w.facts
			w.schedule()
			if !sameFacts(before, w.facts) {
				t.Fatalf("a second decision remembers %+v instead of %+v", w.facts, before)
			}
		}
	})
}

// TestJobsComeToAnEnd: when nothing fails any more every Job is over after a
// while, unless it is told to do nothing.
func TestJobsComeToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := jobWorld{newModel(), map[string]indexes{}, map[string]api.JobEnd{}}
		for _, name := range []string{"n1", "n2", "n3"} {
			w.addNode(name, 8, 20, "")
		}
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			w.step(t)
			w.schedule()
		}
		w.judge("n1", api.NodeAlive)
		for range 40 {
			w.schedule()
			w.obey()
			w.endPods("a", "", 0, "")
			w.endPods("b", "", 0, "")
			w.now = w.now.Add(11 * time.Minute)
		}
		for key, run := range w.facts.Jobs {
			_, name, _ := strings.Cut(key, "/Job/")
			spec := w.objects["Job/"+name].Value.(*batchv1.Job).Spec
			if s := jobDefaults(spec); !run.Finished() && !*s.Suspend && *s.Parallelism > 0 {
				t.Fatalf("%s is not over: %+v\n%s", key, run, w.describe())
			}
		}
	})
}

// TestCronJobsRunOncePerTime: for any readings of the clock, runs are for times
// of the schedule, never twice for one, and never for one that is to come.
func TestCronJobsRunOncePerTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		m.addNode("n1", 8, 100, "")
		more := map[string]string{
			"schedule": rapid.SampledFrom([]string{"*_*_*_*_*", "*/7_*_*_*_*", "15_3_*_*_*"}).Draw(t, "schedule"),
			"policy":   rapid.SampledFrom([]string{"Allow", "Forbid", "Replace"}).Draw(t, "policy"), "zone": "America/New_York",
		}
		if rapid.Bool().Draw(t, "deadline") {
			more["starting"] = "100"
		}
		m.commitSpec(spec{kind: "CronJob", name: "a", revision: "r", more: more})
		table, _, _ := parseTimetable(strings.ReplaceAll(more["schedule"], "_", " "), more["zone"])
		m.schedule()
		first := m.now
		seen := map[int64]bool{}
		var last time.Time
		for range rapid.IntRange(1, 40).Draw(t, "readings") {
			m.now = m.now.Add(time.Duration(rapid.IntRange(-4000, 5000).Draw(t, "seconds")) * time.Second)
			m.schedule()
			m.obey()
			if rapid.Bool().Draw(t, "ends") {
				m.endPods("a", "", int32(rapid.IntRange(0, 1).Draw(t, "code")), "")
			}
			for _, run := range m.facts.CronJobs["ns/CronJob/a"].Runs {
				if seen[run.Minute()] {
					continue
				}
				seen[run.Minute()] = true
				switch {
				case !table.next(run.Time.Add(-time.Second)).Equal(run.Time):
					t.Fatalf("a run for %s, which is no time of the schedule", run.Time)
				case run.Time.After(m.now) || run.Time.Before(first) || !run.Time.After(last):
					t.Fatalf("a run for %s at %s, first seen at %s, after one for %s", run.Time, m.now, first, last)
				}
				last = run.Time
			}
		}
	})
}
