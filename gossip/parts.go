package gossip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoal-dev/shoal/api"
)

// encode makes a Document of a value that is a JSON object: one part for every
// field, and for a field that is an object itself one part for each of its
// fields, under the name "field/key". Parts that are equal to those of the
// previous document are kept.
func encode(previous Document, value any) (Document, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return Document{}, err
	}
	fields, err := object(raw)
	if err != nil {
		return Document{}, err
	}
	parts := make(map[string]json.RawMessage, len(fields))
	for name, field := range fields {
		if len(field) < 2 || field[0] != '{' {
			parts[name] = field
			continue
		}
		inner, err := object(field)
		if err != nil {
			return Document{}, err
		}
		for key, value := range inner {
			parts[name+"/"+key] = value
		}
	}
	return previous.With(parts), nil
}

func object(raw []byte) (map[string]json.RawMessage, error) {
	var out map[string]json.RawMessage
	err := json.Unmarshal(raw, &out)
	return out, err
}

// decode is the reverse of encode. Fields that the value does not have are
// passed over, as in Decode.
func (d Document) decode(value any) error {
	var b bytes.Buffer
	b.WriteByte('{')
	group := ""
	for i, key := range groupedKeys(d.parts) {
		name, inner, nested := strings.Cut(key, "/")
		switch {
		case nested && name == group:
			b.WriteByte(',')
		default:
			if group != "" {
				b.WriteByte('}')
			}
			if group = ""; i > 0 {
				b.WriteByte(',')
			}
			quote(&b, name)
			if nested {
				group = name
				b.WriteByte('{')
			}
		}
		if nested {
			quote(&b, inner)
		}
		b.Write(d.parts[key].value)
	}
	if group != "" {
		b.WriteByte('}')
	}
	b.WriteByte('}')
	return json.Unmarshal(b.Bytes(), value)
}

// groupedKeys returns the keys so that those of one field follow one another.
func groupedKeys(parts map[string]part) []string {
	return slices.SortedFunc(maps.Keys(parts), func(a, b string) int {
		nameA, innerA, _ := strings.Cut(a, "/")
		nameB, innerB, _ := strings.Cut(b, "/")
		if nameA != nameB {
			return strings.Compare(nameA, nameB)
		}
		return strings.Compare(innerA, innerB)
	})
}

// quote writes a field's name and the colon after it.
func quote(b *bytes.Buffer, name string) {
	raw, _ := json.Marshal(name) // a string always marshals
	b.Write(raw)
	b.WriteByte(':')
}

// setParts is an AssignmentSet whose lists are maps, so that a change of one
// pod is a change of one part.
type setParts struct {
	Head    setHead                   `json:"head"`
	BasedOn map[string]api.Seq        `json:"basedOn,omitempty"`
	Pods    map[string]api.Assignment `json:"pods,omitempty"`
	Remove  map[string]api.Removal    `json:"remove,omitempty"`
	Pending map[string]api.Unplaced   `json:"pending,omitempty"`
}

type setHead struct {
	Epoch   uint64 `json:"epoch"`
	Term    uint64 `json:"term"`
	Quorate bool   `json:"quorate"`
	Leader  string `json:"leader"`
}

// EncodeSet makes a Document of an AssignmentSet. What equals the previous one
// costs little to send.
func EncodeSet(previous Document, set api.AssignmentSet) (Document, error) {
	p := setParts{
		Head:    setHead{set.Epoch, set.Term, set.Quorate, set.Leader},
		BasedOn: set.BasedOn,
		Pods:    make(map[string]api.Assignment, len(set.Pods)),
		Remove:  make(map[string]api.Removal, len(set.Remove)),
		Pending: make(map[string]api.Unplaced, len(set.Pending)),
	}
	for _, a := range set.Pods {
		p.Pods[a.Pod.Instance] = a
	}
	for _, r := range set.Remove {
		p.Remove[r.Assignment.Pod.Instance] = r
	}
	for _, u := range set.Pending {
		p.Pending[u.Pod.Instance] = u
	}
	d, err := encode(previous, p)
	if err != nil {
		return Document{}, fmt.Errorf("encode assignments: %w", err)
	}
	return d, nil
}

// DecodeSet is the reverse of EncodeSet.
func DecodeSet(d Document) (api.AssignmentSet, error) {
	var p setParts
	if err := d.decode(&p); err != nil {
		return api.AssignmentSet{}, fmt.Errorf("decode assignments: %w", err)
	}
	set := api.AssignmentSet{
		Epoch: p.Head.Epoch, Term: p.Head.Term, Quorate: p.Head.Quorate, Leader: p.Head.Leader, BasedOn: p.BasedOn,
		Pods: make([]api.Assignment, 0, len(p.Pods)), Remove: make([]api.Removal, 0, len(p.Remove)),
	}
	for _, instance := range slices.Sorted(maps.Keys(p.Pods)) {
		set.Pods = append(set.Pods, p.Pods[instance])
	}
	for _, instance := range slices.Sorted(maps.Keys(p.Remove)) {
		set.Remove = append(set.Remove, p.Remove[instance])
	}
	for _, instance := range slices.Sorted(maps.Keys(p.Pending)) {
		set.Pending = append(set.Pending, p.Pending[instance])
	}
	slices.SortFunc(set.Pods, func(a, b api.Assignment) int { return a.Pod.Compare(b.Pod) })
	slices.SortFunc(set.Pending, func(a, b api.Unplaced) int { return a.Pod.Compare(b.Pod) })
	return set, nil
}

// EncodeFacts makes a Document of the scheduler's memory.
func EncodeFacts(previous Document, facts api.Facts) (Document, error) {
	d, err := encode(previous, facts)
	if err != nil {
		return Document{}, fmt.Errorf("encode facts: %w", err)
	}
	return d, nil
}

// DecodeFacts is the reverse of EncodeFacts.
func DecodeFacts(d Document) (api.Facts, error) {
	var facts api.Facts
	if err := d.decode(&facts); err != nil {
		return api.Facts{}, fmt.Errorf("decode facts: %w", err)
	}
	return facts, nil
}

// statesParts are PodStates by instance.
type statesParts struct {
	BootID string `json:"bootID,omitempty"`

	Pods map[string]api.PodState `json:"pods,omitempty"`
}

func encodeStates(previous Document, states api.PodStates) (Document, error) {
	p := statesParts{BootID: states.BootID, Pods: make(map[string]api.PodState, len(states.Pods))}
	for _, s := range states.Pods {
		p.Pods[s.Pod.Instance] = s
	}
	d, err := encode(previous, p)
	if err != nil {
		return Document{}, fmt.Errorf("encode the states of pods: %w", err)
	}
	return d, nil
}

func decodeStates(d Document) (api.PodStates, error) {
	var p statesParts
	if err := d.decode(&p); err != nil {
		return api.PodStates{}, fmt.Errorf("decode the states of pods: %w", err)
	}
	out := api.PodStates{BootID: p.BootID, Pods: make([]api.PodState, 0, len(p.Pods))}
	for _, instance := range slices.Sorted(maps.Keys(p.Pods)) {
		out.Pods = append(out.Pods, p.Pods[instance])
	}
	slices.SortFunc(out.Pods, func(a, b api.PodState) int { return a.Pod.Compare(b.Pod) })
	return out, nil
}
