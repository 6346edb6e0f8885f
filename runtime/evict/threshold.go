package evict

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Signal names something that a machine can run short of.
type Signal string

// The signals, in kubelet's words.
const (
	Memory      Signal = "memory.available"
	NodeFS      Signal = "nodefs.available"   // where volumes and logs are
	NodeInodes  Signal = "nodefs.inodesFree"  //
	ImageFS     Signal = "imagefs.available"  // where images and what containers write are, if that is another disk
	ImageInodes Signal = "imagefs.inodesFree" //
	PIDs        Signal = "pid.available"
	// Allocatable is the memory that pods may use together and do not. Its
	// thresholds are those of Memory.
	Allocatable Signal = "allocatableMemory.available"
)

// signals are those that have settings, in the order in which kubelet deals with
// them: memory first.
var signals = []Signal{Memory, NodeFS, NodeInodes, ImageFS, ImageInodes, PIDs}

// Amount is a number of bytes, inodes or processes, or a part of those that there
// are.
type Amount struct {
	Number int64
	Part   float64 // of 1; it counts where Number is 0
}

// Of is the amount where there are so many.
func (a Amount) Of(capacity int64) int64 {
	if a.Number == 0 {
		return int64(a.Part * float64(capacity))
	}
	return a.Number
}

// Threshold says how much of something has to be left.
type Threshold struct {
	Signal  Signal
	Least   Amount
	Grace   time.Duration // for how long less may be left; 0 makes it a hard threshold
	Reclaim Amount        // so much more than Least ends what fell below it
}

// Policy says when pods are evicted.
type Policy struct {
	Thresholds []Threshold
	// MaxPodGrace bounds the grace period of pods that a soft threshold ends.
	MaxPodGrace time.Duration
	// Transition is for how long a condition holds on after its cause.
	Transition time.Duration
}

// Settings are a policy as a kubelet's flags write it: memory.available<100Mi,
// nodefs.available<10%, memory.available=1m30s.
type Settings struct {
	Hard, Soft, SoftGrace, MinimumReclaim []string
	MaxPodGrace, Transition               time.Duration
}

// Parse reads settings. The error names every mistake.
func Parse(s Settings) (Policy, error) {
	p := Policy{MaxPodGrace: s.MaxPodGrace, Transition: s.Transition}
	var errs []error
	wrong := func(setting string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", setting, err))
		}
	}
	hard, err := parse(s.Hard, "<", parseAmount)
	wrong("evictionHard", err)
	soft, err := parse(s.Soft, "<", parseAmount)
	wrong("evictionSoft", err)
	grace, err := parse(s.SoftGrace, "=", parseGrace)
	wrong("evictionSoftGracePeriod", err)
	reclaim, err := parse(s.MinimumReclaim, "=", parseAmount)
	wrong("evictionMinimumReclaim", err)
	if s.MaxPodGrace < 0 {
		wrong("evictionMaxPodGracePeriod", fmt.Errorf("%s is less than nothing", s.MaxPodGrace))
	}
	if s.Transition < 0 {
		wrong("evictionPressureTransitionPeriod", fmt.Errorf("%s is less than nothing", s.Transition))
	}
	add := func(signal Signal, least Amount, grace time.Duration) {
		if least.Number == 0 && (least.Part <= 0 || least.Part >= 1) {
			return // 0 % and 100 % switch a threshold off, as in kubelet
		}
		p.Thresholds = append(p.Thresholds, Threshold{signal, least, grace, reclaim[signal]})
	}
	for _, signal := range signals {
		if least, set := hard[signal]; set {
			add(signal, least, 0)
		}
		least, set := soft[signal]
		switch {
		case !set:
		case grace[signal] <= 0:
			wrong("evictionSoftGracePeriod", fmt.Errorf("%s has a threshold in evictionSoft and no grace period", signal))
		default:
			add(signal, least, grace[signal])
		}
	}
	return p, errors.Join(errs...)
}

// parse reads a list of signals and values.
func parse[V any](list []string, sign string, value func(string) (V, error)) (map[Signal]V, error) {
	out := map[Signal]V{}
	var errs []error
	for _, entry := range list {
		name, text, found := strings.Cut(entry, sign)
		signal := Signal(strings.TrimSpace(name))
		v, err := value(strings.TrimSpace(text))
		_, twice := out[signal]
		switch {
		case !found:
			errs = append(errs, fmt.Errorf("%q is no signal, %q and a value", entry, sign))
		case !slices.Contains(signals, signal):
			errs = append(errs, fmt.Errorf("%q is none of %v", signal, signals))
		case twice:
			errs = append(errs, fmt.Errorf("%s is there twice", signal))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", signal, err))
		default:
			out[signal] = v
		}
	}
	return out, errors.Join(errs...)
}

func parseAmount(text string) (Amount, error) {
	if number, percent := strings.CutSuffix(text, "%"); percent {
		part, err := strconv.ParseFloat(number, 64)
		if err != nil || part < 0 || part > 100 {
			return Amount{}, fmt.Errorf("%q is no percentage from 0%% to 100%%", text)
		}
		return Amount{Part: part / 100}, nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return Amount{}, fmt.Errorf("%q is neither a quantity, such as 100Mi, nor a percentage", text)
	}
	return Amount{Number: q.Value()}, nil
}

func parseGrace(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no period, such as 1m30s", text)
	}
	return d, nil
}

// Hard is how much of something has to be left at all, of so much.
func (p Policy) Hard(signal Signal, capacity int64) int64 {
	for _, t := range p.Thresholds {
		if t.Signal == signal && t.Grace == 0 {
			return t.Least.Of(capacity)
		}
	}
	return 0
}
