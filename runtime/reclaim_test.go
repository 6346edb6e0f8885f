package runtime_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-dev/shoal/runtime"
)

func TestReclaim(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	stored := func(name string, created, used time.Duration) runtime.StoredImage {
		i := runtime.StoredImage{ImageInfo: runtime.ImageInfo{Names: []string{name}, ID: name + "@sha256:1", Size: 10, Created: now.Add(-created)}}
		if used > 0 {
			i.Used = now.Add(-used)
		}
		return i
	}
	images := []runtime.StoredImage{
		stored("fresh", time.Minute, 0), stored("old", 5*time.Hour, 0), stored("older", 9*time.Hour, 0),
		stored("lately", 9*time.Hour, time.Hour), stored("now", 9*time.Hour, time.Second), stored("named", 9*time.Hour, 0), stored("run", 9*time.Hour, 0),
	}
	needed := runtime.Needed{Names: map[string]bool{"named": true}, IDs: map[string]bool{"run@sha256:1": true}}
	for _, test := range []struct {
		name        string
		available   int64
		limits      runtime.ImageLimits
		goal        int64
		want        string
		kept, young int
	}{
		{"below the threshold nothing goes", 160, runtime.DefaultImageLimits, 0, "", 0, 0},
		{"at the threshold what was not used for longest goes first", 150, runtime.DefaultImageLimits, 200, "older old lately", 4, 2},
		{"a full disk changes nothing about what is needed", 0, runtime.DefaultImageLimits, 200, "older old lately", 4, 2},
		{"an age of zero spares none for its youth", 0, runtime.ImageLimits{High: 90, Low: 50}, 500, "older old lately fresh now", 2, 0},
		{"a threshold of 100 means never", 0, runtime.ImageLimits{High: 100, Low: 80}, 0, "", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := runtime.Filesystem{Capacity: 1000, Available: test.available}
			plan := runtime.PlanReclaim(disk, images, needed, test.limits, now)
			var got []string
			for _, i := range plan.Remove {
				got = append(got, i.Names[0])
			}
			if strings.Join(got, " ") != test.want || plan.Goal != test.goal || plan.Kept != test.kept || plan.Young != test.young {
				t.Errorf("got %q, %+v", got, plan)
			}
			if want := max(0, test.goal-test.available); plan.Missing(disk) != want {
				t.Errorf("missing: got %d, want %d", plan.Missing(disk), want)
			}
			if plan.Eligible() != int64(len(plan.Remove))*10 {
				t.Errorf("eligible: got %d", plan.Eligible())
			}
		})
	}
	if p := runtime.PlanReclaim(runtime.Filesystem{}, images, needed, runtime.DefaultImageLimits, now); p.Goal != 0 || p.Remove != nil {
		t.Errorf("a disk of which nothing is known: got %+v", p)
	}
}

// Whatever there is, nothing that is needed or young ever goes, order and content
// of the plan depend on the values alone, and nothing that may go is left out.
func TestReclaimSpares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_000_000, 0)
		limits := runtime.ImageLimits{
			Low: rapid.IntRange(0, 98).Draw(t, "low"), MinAge: time.Duration(rapid.IntRange(0, 500).Draw(t, "age")) * time.Second,
		}
		limits.High = rapid.IntRange(limits.Low+1, 99).Draw(t, "high")
		needed := runtime.Needed{Names: map[string]bool{}, IDs: map[string]bool{}}
		var images []runtime.StoredImage
		spared := map[string]bool{}
		for n := range rapid.IntRange(0, 12).Draw(t, "images") {
			i := runtime.StoredImage{ImageInfo: runtime.ImageInfo{
				ID: fmt.Sprint("id", n), Names: []string{fmt.Sprint("a", n), fmt.Sprint("b", n)},
				Created: now.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "created")) * time.Second),
			}}
			if rapid.Bool().Draw(t, "was used") {
				i.Used = now.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "used")) * time.Second)
			}
			switch rapid.SampledFrom([]string{"", "name", "container"}).Draw(t, "needed by") {
			case "name":
				needed.Names[i.Names[n%2]], spared[i.ID] = true, true
			case "container":
				needed.IDs[i.ID], spared[i.ID] = true, true
			}
			if now.Sub(i.Created) < limits.MinAge || now.Sub(i.Used) < limits.MinAge {
				spared[i.ID] = true
			}
			images = append(images, i)
		}
		capacity := rapid.Int64Range(1, 1<<50).Draw(t, "capacity")
		disk := runtime.Filesystem{Capacity: capacity, Available: rapid.Int64Range(0, capacity).Draw(t, "available")}
		plan := runtime.PlanReclaim(disk, images, needed, limits, now)
		if disk.Used() < limits.High && len(plan.Remove) > 0 {
			t.Fatalf("removes at %d %%", disk.Used())
		}
		if disk.Used() < limits.High {
			return
		}
		if len(plan.Remove)+len(spared) != len(images) || plan.Kept != len(spared) {
			t.Fatalf("got %d to remove and %d kept, want %d kept of %d", len(plan.Remove), plan.Kept, len(spared), len(images))
		}
		last := time.Time{}
		for _, i := range plan.Remove {
			latest := i.Created
			if i.Used.After(latest) {
				latest = i.Used
			}
			if spared[i.ID] || latest.Before(last) {
				t.Fatalf("%s goes, or goes too late: %+v", i.ID, plan)
			}
			last = latest
		}
		slices.Reverse(images)
		if again := runtime.PlanReclaim(disk, images, needed, limits, now); fmt.Sprint(again) != fmt.Sprint(plan) {
			t.Fatalf("another order gives another plan:\n%v\n%v", plan, again)
		}
	})
}
