package containerd

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
)

// The labels on a container. Image labels are never among them: a hostile image
// could otherwise speak to whoever reads labels (CVE-2026-53488).
const (
	prefix          = "fleet.shoal.dev/"
	labelAssignment = prefix + "assignment" // JSON of api.Assignment without its reason
	labelInstance   = prefix + "instance"
	labelNamespace  = prefix + "namespace"
	labelPod        = prefix + "pod"
	labelContainer  = prefix + "container"
	labelInit       = prefix + "init"
	labelAttempt    = prefix + "attempt"
	labelCrashes    = prefix + "crashes"
	labelSandbox    = prefix + "sandbox"
	labelImage      = prefix + "image"
	labelImageID    = prefix + "image-id"
	labelStarted    = prefix + "started" // RFC 3339, once it has been started
	labelEnd        = prefix + "end"     // JSON of end
)

// maxLabel is containerd's limit on the length of a label's key and value.
const maxLabel = 4096

// end is how a container ended, as it is written on it.
type end struct {
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished"`
	Code     int32     `json:"code"`
	Reason   string    `json:"reason"`
	Message  string    `json:"message,omitempty"`
}

func labels(s runtime.ContainerSpec, imageName, imageID string) map[string]string {
	assignment := s.Assignment
	assignment.Reason = ""
	a, err := json.Marshal(assignment)
	if err != nil || len(a) > maxLabel-len(labelAssignment) {
		a = nil // it can only be the name of a workload beyond all limits
	}
	return map[string]string{
		labelAssignment: string(a),
		labelInstance:   s.Assignment.Pod.Instance,
		labelNamespace:  s.Namespace,
		labelPod:        s.Pod,
		labelContainer:  s.Name,
		labelInit:       strconv.FormatBool(s.Init),
		labelAttempt:    strconv.Itoa(int(s.Attempt)),
		labelCrashes:    strconv.Itoa(int(s.Crashes)),
		labelSandbox:    s.Sandbox,
		labelImage:      imageName,
		labelImageID:    imageID,
	}
}

// unlabel reads back what labels wrote. Containers without an instance are not
// ours.
func unlabel(id string, l map[string]string) (runtime.Held, bool) {
	if l[labelInstance] == "" || l[labelContainer] == "" {
		return runtime.Held{}, false
	}
	var assignment api.Assignment
	_ = json.Unmarshal([]byte(l[labelAssignment]), &assignment)
	assignment.Pod.Instance = l[labelInstance]
	held := runtime.Held{
		Assignment: assignment,
		Namespace:  l[labelNamespace],
		Pod:        l[labelPod],
		Container: runtime.Container{
			ID:      id,
			Name:    l[labelContainer],
			Init:    l[labelInit] == "true",
			Attempt: number(l[labelAttempt]),
			Crashes: number(l[labelCrashes]),
			Sandbox: l[labelSandbox],
			Image:   l[labelImage],
			ImageID: l[labelImageID],
			State:   runtime.ContainerCreated,
		},
	}
	held.Started, _ = time.Parse(time.RFC3339Nano, l[labelStarted])
	var e end
	if json.Unmarshal([]byte(l[labelEnd]), &e) == nil && !e.Finished.IsZero() {
		held.State = runtime.ContainerExited
		held.Started, held.Finished = e.Started, e.Finished
		held.ExitCode, held.Reason, held.Message = e.Code, e.Reason, e.Message
		held.Recorded = true
	}
	return held, true
}

func number(s string) int32 {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// endLabel returns the label that records an end.
func endLabel(c runtime.Container) string {
	e := end{c.Started, c.Finished, c.ExitCode, c.Reason, c.Message}
	for {
		b, err := json.Marshal(e)
		if err != nil {
			return ""
		}
		if over := len(b) + len(labelEnd) - maxLabel; over > 0 {
			e.Message = e.Message[:max(0, len(e.Message)-over-16)]
			continue
		}
		return string(b)
	}
}
