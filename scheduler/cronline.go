package scheduler

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// A timetable is a cron line in a time zone.
type timetable struct {
	schedule cron.Schedule
	zone     *time.Location
}

// Reasons why a CronJob does not run, in Kubernetes' words but for the last one.
const (
	noteZone      = "UnknownTimeZone"
	noteLine      = "UnparseableSchedule"
	noteNever     = "InvalidSchedule"
	noteMissed    = "MissSchedule"
	noteMany      = "TooManyMissedTimes"
	noteActive    = "JobAlreadyActive"
	noteClockBack = "ClockWentBack"
)

// parseTimetable reads a cron line and a time zone. Without a zone it is UTC, so
// that all nodes agree. The reason says what is wrong, "" when nothing is.
func parseTimetable(line, zone string) (t timetable, reason, message string) {
	location, err := time.LoadLocation(zone)
	if err != nil {
		return timetable{}, noteZone, fmt.Sprintf("invalid timeZone: %q: %v", zone, err)
	}
	schedule, err := parseCron(line)
	if err != nil {
		return timetable{}, noteLine, fmt.Sprintf("unparseable schedule: %q: %v", line, err)
	}
	return timetable{schedule, location}, "", ""
}

// parseCron reads a cron line. The library panics on some, and what follows TZ=
// is not for it to decide.
func parseCron(line string) (schedule cron.Schedule, err error) {
	if strings.Contains(line, "TZ") {
		return nil, fmt.Errorf("use timeZone instead of TZ in the schedule")
	}
	defer func() {
		if r := recover(); r != nil {
			schedule, err = nil, fmt.Errorf("%v", r)
		}
	}()
	return cron.ParseStandard(line)
}

// next returns the first time after another one, zero when there is none within
// five years.
func (t timetable) next(after time.Time) time.Time {
	return t.schedule.Next(after.In(t.zone)).UTC()
}

// latest returns the last time after one time and not after another, zero when
// there is none. many says that it is the last of more than a hundred, by the
// rough measure that Kubernetes takes: as often as the first two times are apart.
func (t timetable) latest(after, now time.Time) (latest time.Time, many bool) {
	first := t.next(after)
	if first.IsZero() || first.After(now) {
		return time.Time{}, false
	}
	second := t.next(first)
	if second.IsZero() || second.After(now) {
		return first, false
	}
	many = now.Sub(first)/max(second.Sub(first), time.Second) >= 100
	if every, constant := t.schedule.(cron.ConstantDelaySchedule); constant {
		return first.Add(now.Sub(first) / every.Delay * every.Delay), many
	}
	// The next time is never earlier when one looks from later on, so the last
	// second from which it is not after now is found by halving.
	low, high := int64(0), int64(math.Ceil(now.Sub(second).Seconds()))+1
	for high-low > 1 {
		middle := low + (high-low)/2
		if next := t.next(second.Add(time.Duration(middle-1) * time.Second)); next.IsZero() || next.After(now) {
			high = middle
		} else {
			low = middle
		}
	}
	if low == 0 {
		return second, many
	}
	return t.next(second.Add(time.Duration(low-1) * time.Second)), many
}
