package api

import (
	"encoding/json"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"pgregory.net/rapid"
)

func TestJobSlots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := JobSlot{
			Minute: rapid.SampledFrom([]int64{0, 1, 29012345}).Draw(t, "minute"), Index: rapid.IntRange(0, 1e6).Draw(t, "index"), Indexed: rapid.Bool().Draw(t, "indexed"),
		}
		if got, ok := ParseJobSlot(want.String()); !ok || got != want {
			t.Fatalf("%q is %+v, want %+v", want.String(), got, want)
		}
	})
	for _, slot := range []string{"", "-", "p", "n1", "-1", "p-1", "01", "+1", "1-2-3", "0-1", "1-", "p1-2", " 1"} {
		if got, ok := ParseJobSlot(slot); ok {
			t.Errorf("%q is %+v, want none", slot, got)
		}
	}
}

func TestRunsSurviveJSON(t *testing.T) {
	limit := int32(3)
	at := time.Date(2026, 1, 1, 12, 0, 0, 5, time.FixedZone("here", 3600))
	run := JobRun{
		Revision: "r", Time: at, Spec: &batchv1.JobSpec{BackoffLimit: &limit}, Began: at, Started: at, Done: "1,3-5", Failed: 2, Row: 1, Latest: at,
		Indexes: map[int]IndexFailures{2: {1, at}}, Counted: []string{"a"}, Target: JobEnd{batchv1.JobComplete, "r", "m", at}, End: JobEnd{batchv1.JobComplete, "r", "m", at},
	}
	want := CronRuns{Since: at, Last: at, Succeeded: at, Line: "UTC @daily", Next: at, Note: CronNote{"R", "m", at}, Runs: []JobRun{run}}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got CronRuns
	if err := json.Unmarshal(raw, &got); err != nil || !got.Equal(want) {
		t.Errorf("%s became %+v (%v)", raw, got, err)
	}
	if r, found := got.Run(at.Unix() / 60); !found || !r.Equal(run) {
		t.Errorf("the run for its minute is %+v, %v", r, found)
	}
	for name, change := range map[string]func(*JobRun){
		"done": func(r *JobRun) { r.Done = "1" }, "indexes": func(r *JobRun) { r.Indexes = nil }, "spec": func(r *JobRun) { r.Spec = nil },
		"counted": func(r *JobRun) { r.Counted = nil }, "end": func(r *JobRun) { r.End = JobEnd{} }, "time": func(r *JobRun) { r.Started = at.Add(1) },
	} {
		other := run
		change(&other)
		if run.Equal(other) {
			t.Errorf("a run with another %s is the same", name)
		}
	}
}
