package api

import (
	"slices"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// Autoscaling is what a HorizontalPodAutoscaler has done, and what it needs to
// know of the past. Nothing that it points to is changed once it was handed out.
type Autoscaling struct {
	// Target is the workload whose number of pods it decides, without a slot;
	// the zero one while there is none.
	Target Identity `json:"target,omitzero"`
	// Replicas is how many pods the target is to have: what stands in Git is
	// only where it began.
	Replicas int32     `json:"replicas"`
	Scaled   time.Time `json:"scaled,omitzero"` // when it changed Replicas last
	// Why it did, and what it had been before that.
	Why string `json:"why,omitempty"`
	Was int32  `json:"was,omitempty"`
	// Advice is what the metrics alone asked for, oldest first, as far back as
	// its windows go.
	Advice []Advice `json:"advice,omitempty"`
	// Ups and Downs are the changes within the periods of its policies, oldest first.
	Ups        []Rescale                                        `json:"ups,omitempty"`
	Downs      []Rescale                                        `json:"downs,omitempty"`
	Conditions []autoscalingv2.HorizontalPodAutoscalerCondition `json:"conditions,omitempty"`
}

// Advice is a number of pods that was asked for from one time on until the next
// advice.
type Advice struct {
	From     time.Time `json:"from"`
	Replicas int32     `json:"replicas"`
}

// Rescale is by how many pods a workload was scaled.
type Rescale struct {
	At   time.Time `json:"at"`
	Pods int32     `json:"pods"` // above zero
}

// Equal reports whether two memories are the same.
func (a Autoscaling) Equal(o Autoscaling) bool {
	rescale := func(x, y Rescale) bool { return x.Pods == y.Pods && x.At.Equal(y.At) }
	return a.Target == o.Target && a.Replicas == o.Replicas && a.Scaled.Equal(o.Scaled) && a.Why == o.Why && a.Was == o.Was &&
		slices.EqualFunc(a.Advice, o.Advice, func(x, y Advice) bool { return x.Replicas == y.Replicas && x.From.Equal(y.From) }) &&
		slices.EqualFunc(a.Ups, o.Ups, rescale) && slices.EqualFunc(a.Downs, o.Downs, rescale) &&
		slices.EqualFunc(a.Conditions, o.Conditions, func(x, y autoscalingv2.HorizontalPodAutoscalerCondition) bool {
			return x.Type == y.Type && x.Status == y.Status && x.Reason == y.Reason && x.Message == y.Message &&
				x.LastTransitionTime.Equal(&y.LastTransitionTime)
		})
}
