package api

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// JobSlot is the slot of a Job's pod, or of one of a CronJob's: which piece of
// which run's work it does. A pod that takes the place of another has the same.
type JobSlot struct {
	// Minute is the time of the schedule that the run is for, in minutes since
	// 1970, as Kubernetes puts it into the names of Jobs; 0 for a Job of its own.
	Minute int64
	Index  int
	// Indexed tells a completion index from a mere number.
	Indexed bool
}

// String returns "3" for a completion index and "p3" for a mere number, with
// "29012345-" before it in a run of a CronJob.
func (s JobSlot) String() string {
	out := strconv.Itoa(s.Index)
	if !s.Indexed {
		out = "p" + out
	}
	if s.Minute != 0 {
		out = strconv.FormatInt(s.Minute, 10) + "-" + out
	}
	return out
}

// ParseJobSlot reads what String writes.
func ParseJobSlot(slot string) (JobSlot, bool) {
	var out JobSlot
	minute, number, run := strings.Cut(slot, "-")
	if !run {
		minute, number = "0", slot
	}
	number, mere := strings.CutPrefix(number, "p")
	var errMinute, errIndex error
	out.Minute, errMinute = strconv.ParseInt(minute, 10, 64)
	out.Index, errIndex = strconv.Atoi(number)
	out.Indexed = !mere
	return out, errMinute == nil && errIndex == nil && out.Index >= 0 && out.String() == slot
}

// JobName returns the name of the Job that a pod belongs to: of the object in
// Git, or of the one that Kubernetes would have made of a CronJob for one time.
func (id Identity) JobName() string {
	slot, ok := ParseJobSlot(id.Slot)
	if id.Kind != "CronJob" || !ok {
		return id.Owner
	}
	return CronJobName(id.Owner, slot.Minute)
}

// CronJobName names the run of a CronJob for one time, in minutes since 1970.
func CronJobName(owner string, minute int64) string {
	return owner + "-" + strconv.FormatInt(minute, 10)
}

// JobRun is what became of a Job, or of one run of a CronJob. It outlives its
// pods. Nothing that it points to is changed once it was handed out.
type JobRun struct {
	// Revision is that of the Job; another one in Git is another run. Unit and
	// Commit hold its template.
	Revision string `json:"revision"`
	Unit     string `json:"unit"`
	Commit   Commit `json:"commit"`
	// Time is the time of the schedule that a CronJob's run is for. Spec is
	// what a CronJob's run began with, without the template; a Job's is in Git.
	Time time.Time        `json:"time,omitzero"`
	Spec *batchv1.JobSpec `json:"spec,omitempty"`

	Began time.Time `json:"began"` // when it was first seen
	// Started is since when it may have pods; zero while it is suspended.
	Started time.Time `json:"started,omitzero"`
	// Switched is when it was last suspended or resumed; zero when it never was.
	Suspended bool      `json:"suspended,omitempty"`
	Switched  time.Time `json:"switched,omitzero"`

	// Done and GivenUp are the pieces of work that succeeded and that failed for
	// good, as Kubernetes writes completed indexes: "1,3-5,7".
	Done    string `json:"done,omitempty"`
	GivenUp string `json:"givenUp,omitempty"`
	// Failed is the number of pods that failed, but for those that the Job's
	// policy ignores; Row is how many did since the last success, Latest when
	// the last of them did.
	Failed int32     `json:"failed,omitempty"`
	Row    int32     `json:"row,omitempty"`
	Latest time.Time `json:"latest,omitzero"`
	// Indexes holds the failures of each completion index that has not ended,
	// when they are limited one by one.
	Indexes map[int]IndexFailures `json:"indexes,omitempty"`
	// Counted are the instances that still exist and whose end is in the
	// figures above, sorted: no end is counted twice.
	Counted []string `json:"counted,omitempty"`

	// Target is how it is going to end, once its pods are gone; End is how it
	// has ended. Expired says that ttlSecondsAfterFinished has passed since.
	Target  JobEnd `json:"target,omitzero"`
	End     JobEnd `json:"end,omitzero"`
	Expired bool   `json:"expired,omitempty"`
}

// Finished reports whether the run is over.
func (r JobRun) Finished() bool { return r.End.Type != "" }

// Minute returns the time of a CronJob's run in minutes since 1970.
func (r JobRun) Minute() int64 { return r.Time.Unix() / 60 }

// Equal reports whether two runs are the same.
func (r JobRun) Equal(o JobRun) bool {
	return r.Revision == o.Revision && r.Unit == o.Unit && r.Commit == o.Commit && r.Time.Equal(o.Time) &&
		(r.Spec == o.Spec || equality.Semantic.DeepEqual(r.Spec, o.Spec)) && r.Began.Equal(o.Began) && r.Started.Equal(o.Started) &&
		r.Suspended == o.Suspended && r.Switched.Equal(o.Switched) && r.Done == o.Done && r.GivenUp == o.GivenUp &&
		r.Failed == o.Failed && r.Row == o.Row && r.Latest.Equal(o.Latest) &&
		maps.EqualFunc(r.Indexes, o.Indexes, func(a, b IndexFailures) bool { return a.Failed == b.Failed && a.Latest.Equal(b.Latest) }) &&
		slices.Equal(r.Counted, o.Counted) && r.Target.equal(o.Target) && r.End.equal(o.End) && r.Expired == o.Expired
}

// IndexFailures are the failures of one completion index.
type IndexFailures struct {
	Failed int32     `json:"failed"`
	Latest time.Time `json:"latest"`
}

// JobEnd is how a Job ends, in the words of its conditions.
type JobEnd struct {
	Type    batchv1.JobConditionType `json:"type"` // JobComplete or JobFailed; "" for no end
	Reason  string                   `json:"reason,omitempty"`
	Message string                   `json:"message,omitempty"`
	At      time.Time                `json:"at,omitzero"`
}

func (e JobEnd) equal(o JobEnd) bool {
	return e.Type == o.Type && e.Reason == o.Reason && e.Message == o.Message && e.At.Equal(o.At)
}

// CronRuns is what became of a CronJob.
type CronRuns struct {
	// Since is when the CronJob was first seen: nothing before is missed.
	Since time.Time `json:"since"`
	// Last is the time of the schedule that was last served. It never goes
	// back, whatever the clock does, and no run is for it or for one before it.
	Last      time.Time `json:"last,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"` // when a run last did
	// Line is the schedule and the time zone for which Next is the next time;
	// no Next: it never comes.
	Line string    `json:"line,omitempty"`
	Next time.Time `json:"next,omitzero"`
	Note CronNote  `json:"note,omitzero"`
	Runs []JobRun  `json:"runs,omitempty"` // that exist, oldest first
}

// CronNote says why a CronJob did not run, or is not going to.
type CronNote struct {
	Reason  string    `json:"reason"` // one CamelCase word, Kubernetes' own where it has one
	Message string    `json:"message"`
	At      time.Time `json:"at,omitzero"` // the time of the schedule that it is about; zero: all
}

// Equal reports whether two memories of a CronJob are the same.
func (c CronRuns) Equal(o CronRuns) bool {
	return c.Since.Equal(o.Since) && c.Last.Equal(o.Last) && c.Succeeded.Equal(o.Succeeded) && c.Line == o.Line && c.Next.Equal(o.Next) &&
		c.Note.Equal(o.Note) && slices.EqualFunc(c.Runs, o.Runs, JobRun.Equal)
}

// Equal reports whether two notes say the same.
func (n CronNote) Equal(o CronNote) bool {
	return cmp.Or(strings.Compare(n.Reason, o.Reason), strings.Compare(n.Message, o.Message)) == 0 && n.At.Equal(o.At)
}

// Run returns the run for one time, in minutes since 1970.
func (c CronRuns) Run(minute int64) (JobRun, bool) {
	i := slices.IndexFunc(c.Runs, func(r JobRun) bool { return r.Minute() == minute })
	if i < 0 {
		return JobRun{}, false
	}
	return c.Runs[i], true
}
