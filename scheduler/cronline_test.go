package scheduler

import (
	"testing"
	"time"
)

func at(t testing.TB, text string) time.Time {
	t.Helper()
	out, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestTimetable(t *testing.T) {
	for _, tt := range []struct {
		line, zone, after, now string
		next, latest           string // in UTC, "" for none
		many                   bool
	}{
		{"*/10 * * * *", "", "2026-01-01 12:00:00", "2026-01-01 12:09:59", "2026-01-01 12:10:00", "", false},
		{"*/10 * * * *", "", "2026-01-01 12:00:00", "2026-01-01 12:10:00", "2026-01-01 12:10:00", "2026-01-01 12:10:00", false},
		{"*/10 * * * *", "", "2026-01-01 12:00:00", "2026-01-01 12:20:00", "2026-01-01 12:10:00", "2026-01-01 12:20:00", false},
		{"* * * * *", "", "2026-01-01 12:00:00", "2026-01-01 13:39:59", "2026-01-01 12:01:00", "2026-01-01 13:39:00", false},
		{"* * * * *", "", "2026-01-01 12:00:00", "2026-01-01 13:41:00", "2026-01-01 12:01:00", "2026-01-01 13:41:00", true},
		{"* * * * *", "", "1970-01-01 00:00:00", "2026-01-01 12:00:30", "1970-01-01 00:01:00", "2026-01-01 12:00:00", true},
		{"* * * 1 *", "", "2026-01-01 12:00:00", "2026-11-01 00:00:00", "2026-01-01 12:01:00", "2026-01-31 23:59:00", true},
		{"0 0 29 2 *", "", "2026-01-01 00:00:00", "2033-01-01 00:00:00", "2028-02-29 00:00:00", "2032-02-29 00:00:00", false},
		{"0 0 31 2 *", "", "2026-01-01 00:00:00", "2033-01-01 00:00:00", "", "", false},
		{"@every 90s", "", "2026-01-01 12:00:00", "2026-01-01 12:10:00", "2026-01-01 12:01:30", "2026-01-01 12:09:00", false},
		{"@monthly", "Europe/Berlin", "2026-06-15 12:00:00", "2026-07-01 00:00:00", "2026-06-30 22:00:00", "2026-06-30 22:00:00", false},
		// At 2:30 there is no such time on 8 March in New York, and two on 1 November.
		{"30 2 * * *", "America/New_York", "2026-03-07 12:00:00", "2026-03-09 12:00:00", "2026-03-09 06:30:00", "2026-03-09 06:30:00", false},
		{"30 1 * * *", "America/New_York", "2026-10-31 12:00:00", "2026-11-01 06:00:00", "2026-11-01 05:30:00", "2026-11-01 05:30:00", false},
	} {
		table, reason, message := parseTimetable(tt.line, tt.zone)
		if reason != "" {
			t.Errorf("%s: %s: %s", tt.line, reason, message)
			continue
		}
		next := table.next(at(t, tt.after))
		latest, many := table.latest(at(t, tt.after), at(t, tt.now))
		show := func(t time.Time) string {
			if t.IsZero() {
				return ""
			}
			return t.Format("2006-01-02 15:04:05")
		}
		if show(next) != tt.next || show(latest) != tt.latest || many != tt.many {
			t.Errorf("%s in %q after %s: next %s, at %s the last is %s (many %v); want %s, %s (%v)",
				tt.line, tt.zone, tt.after, show(next), tt.now, show(latest), many, tt.next, tt.latest, tt.many)
		}
	}
	for _, line := range []string{"", "* * * *", "60 * * * *", "TZ=UTC 0 0 * * *", "CRON_TZ=UTC * * * * *", "@every", "@reboot", "*/0 * * * *", "TZ="} {
		if _, reason, _ := parseTimetable(line, ""); reason != noteLine {
			t.Errorf("%q: %q, want %s", line, reason, noteLine)
		}
	}
	if _, reason, _ := parseTimetable("@daily", "Mars/Olympus"); reason != noteZone {
		t.Errorf("a zone that nobody knows: %q", reason)
	}
}

// FuzzTimetable: no line makes it panic or go on for ever, the next time is later,
// and the last one is the last.
func FuzzTimetable(f *testing.F) {
	for _, line := range []string{
		"* * * * *", "*/15 0-6,22 * * MON-FRI", "0 0 31 2 *", "@every 1h30m", "@weekly", "0 0 29 2 *", "59 23 31 12 7", "TZ=UTC * * * * *", "TZ=", "*/0 * * * *",
		"? ? ? ? ?", "1-0 * * * *", "@every -5s", "@every 1ns", "99999999999999999999 * * * *", "* * * jan-DEC *", "*/9223372036854775807 * * * *",
	} {
		f.Add(line, "America/New_York", int64(1767268800), uint32(86400))
	}
	f.Add("30 2 * * *", "Australia/Lord_Howe", int64(-62135596800), uint32(4294967295))
	f.Fuzz(func(t *testing.T, line, zone string, unix int64, seconds uint32) {
		table, reason, _ := parseTimetable(line, zone)
		if reason != "" {
			return
		}
		after := time.Unix(unix%253402300800, 0).UTC() // years of four digits
		now := after.Add(time.Duration(seconds) * time.Second)
		next := table.next(after)
		if !next.IsZero() && !next.After(after) {
			t.Fatalf("%q in %s: after %s comes %s", line, zone, after, next)
		}
		latest, _ := table.latest(after, now)
		switch {
		case latest.IsZero():
			if !next.IsZero() && !next.After(now) {
				t.Fatalf("%q in %s: %s has passed at %s", line, zone, next, now)
			}
		case !latest.After(after) || latest.After(now) || latest.Before(next):
			t.Fatalf("%q in %s: the last time from %s to %s is %s", line, zone, after, now, latest)
		default:
			if following := table.next(latest); !following.IsZero() && !following.After(now) {
				t.Fatalf("%q in %s: %s is not the last time until %s: %s is later", line, zone, latest, now, following)
			}
		}
	})
}
