package scheduler

import (
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"github.com/shoal-dev/shoal/api"
)

// What a HorizontalPodAutoscaler does when nothing else is said.
// Source: Kubernetes, "Horizontal Pod Autoscaling".
const (
	defaultTolerance  = 0.1
	defaultDownWindow = 300 * time.Second
	leastUpLimit      = 4 // pods that it may always scale up to at once
)

// A pace is how soon and how fast a workload is scaled in one direction.
type pace struct {
	window    time.Duration // for how long the metrics must have asked for it
	choose    autoscalingv2.ScalingPolicySelect
	policies  []autoscalingv2.HPAScalingPolicy // nil: the default
	tolerance float64
}

// paces returns those of an autoscaler, up and down.
func paces(value *autoscalingv2.HorizontalPodAutoscaler) (up, down pace) {
	up, down = pace{tolerance: defaultTolerance}, pace{tolerance: defaultTolerance, window: defaultDownWindow}
	if b := value.Spec.Behavior; b != nil {
		up.read(b.ScaleUp)
		down.read(b.ScaleDown)
	}
	return up, down
}

func (p *pace) read(rules *autoscalingv2.HPAScalingRules) {
	if rules == nil {
		return
	}
	if rules.StabilizationWindowSeconds != nil {
		p.window = seconds(*rules.StabilizationWindowSeconds)
	}
	if rules.SelectPolicy != nil {
		p.choose = *rules.SelectPolicy
	}
	if rules.Tolerance != nil {
		p.tolerance = rules.Tolerance.AsApproximateFloat64()
	}
	p.policies = rules.Policies
}

// longest is the longest period of the policies.
func (p pace) longest() time.Duration {
	var longest time.Duration
	for _, policy := range p.policies {
		longest = max(longest, seconds(policy.PeriodSeconds))
	}
	return longest
}

// highest returns up to how many pods a workload may be scaled now. What was
// added within the period of a policy counts, and what was taken away again does
// not.
func (p pace) highest(current int32, ups, downs []api.Rescale, now time.Time) int32 {
	if p.choose == autoscalingv2.DisabledPolicySelect {
		return current
	}
	if p.policies == nil {
		return clamp(max(2*int64(current), leastUpLimit))
	}
	limits := make([]int64, len(p.policies))
	for i, policy := range p.policies {
		period := seconds(policy.PeriodSeconds)
		before := int64(current) - within(ups, period, now) + within(downs, period, now)
		limits[i] = before + int64(policy.Value)
		if policy.Type == autoscalingv2.PercentScalingPolicy {
			limits[i] = int64(math.Ceil(float64(before) * (1 + float64(policy.Value)/100)))
		}
	}
	return max(current, clamp(p.pick(limits, true)))
}

// lowest returns down to how many pods a workload may be scaled now.
func (p pace) lowest(current int32, ups, downs []api.Rescale, now time.Time) int32 {
	if p.choose == autoscalingv2.DisabledPolicySelect {
		return current
	}
	if p.policies == nil {
		return 0
	}
	limits := make([]int64, len(p.policies))
	for i, policy := range p.policies {
		period := seconds(policy.PeriodSeconds)
		before := int64(current) - within(ups, period, now) + within(downs, period, now)
		limits[i] = before - int64(policy.Value)
		if policy.Type == autoscalingv2.PercentScalingPolicy {
			limits[i] = int64(float64(before) * (1 - float64(policy.Value)/100))
		}
	}
	return min(current, clamp(p.pick(limits, false)))
}

// pick chooses between policies: the one that changes most, or the one that
// changes least.
func (p pace) pick(limits []int64, up bool) int64 {
	best := limits[0]
	for _, limit := range limits[1:] {
		if up == (p.choose != autoscalingv2.MinChangePolicySelect) {
			best = max(best, limit)
		} else {
			best = min(best, limit)
		}
	}
	return best
}

// within sums up what was changed within a period.
func within(changes []api.Rescale, period time.Duration, now time.Time) int64 {
	n := int64(0)
	for _, c := range changes {
		if c.At.After(now.Add(-period)) {
			n += int64(c.Pods)
		}
	}
	return n
}

// recent drops changes that no policy counts any more. One from the future, of
// a clock that went back, counts as of now.
func recent(changes []api.Rescale, longest time.Duration, now time.Time) []api.Rescale {
	var out []api.Rescale
	for _, c := range changes {
		if c.At.After(now) {
			c.At = now
		}
		if c.At.After(now.Add(-longest)) {
			out = append(out, c)
		}
	}
	return out
}

// steady returns what the windows let be done of what the metrics ask for now:
// up to the least, and down to the most, that they asked for in the window.
func steady(advice []api.Advice, current, desired int32, up, down pace, now time.Time) int32 {
	least, most := desired, desired
	for i, a := range advice {
		until := now
		if i+1 < len(advice) {
			until = advice[i+1].From
		}
		if until.After(now.Add(-up.window)) {
			least = min(least, a.Replicas)
		}
		if until.After(now.Add(-down.window)) {
			most = max(most, a.Replicas)
		}
	}
	return min(max(current, least), most)
}

// advised notes what the metrics ask for, and forgets what is too old to matter.
func advised(advice []api.Advice, desired int32, window time.Duration, now time.Time) []api.Advice {
	var out []api.Advice
	for i, a := range advice {
		if a.From.After(now) {
			a.From = now
		}
		if i+1 == len(advice) || advice[i+1].From.After(now.Add(-window)) {
			out = append(out, a)
		}
	}
	if len(out) == 0 || out[len(out)-1].Replicas != desired {
		out = append(out, api.Advice{From: now, Replicas: desired})
	}
	return out
}

func clamp(n int64) int32 { return int32(min(max(n, 0), math.MaxInt32)) }
