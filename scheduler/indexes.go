package scheduler

import (
	"slices"
	"strconv"
	"strings"
)

// indexes is a set of numbers from 0, as ranges in ascending order that neither
// touch nor overlap. It is never written to: add returns another.
type indexes []indexRange

type indexRange struct{ first, last int }

// parseIndexes reads the form in which Kubernetes writes completed indexes:
// "1,3-5,7". What cannot be read is left out, and so is what is not below limit.
// Source: Job.status.completedIndexes.
func parseIndexes(text string, limit int) indexes {
	var out indexes
	for part := range strings.SplitSeq(text, ",") {
		from, to, series := strings.Cut(part, "-")
		if !series {
			to = from
		}
		first, err := strconv.Atoi(from)
		last, errLast := strconv.Atoi(to)
		last = min(last, limit-1)
		if err != nil || errLast != nil || first < 0 || last < first {
			continue
		}
		if n := len(out); n > 0 && first <= out[n-1].last+1 {
			if first >= out[n-1].first {
				out[n-1].last = max(out[n-1].last, last)
			}
			continue
		}
		out = append(out, indexRange{first, last})
	}
	return out
}

// String writes three numbers or more in a row as a series.
func (x indexes) String() string {
	var parts []string
	for _, r := range x {
		switch first, last := strconv.Itoa(r.first), strconv.Itoa(r.last); r.last - r.first {
		case 0:
			parts = append(parts, first)
		case 1:
			parts = append(parts, first, last)
		default:
			parts = append(parts, first+"-"+last)
		}
	}
	return strings.Join(parts, ",")
}

// find returns the position of the range that holds i, or of the next one.
func (x indexes) find(i int) (position int, in bool) {
	position, _ = slices.BinarySearchFunc(x, i, func(r indexRange, i int) int { return r.last - i })
	return position, position < len(x) && x[position].first <= i
}

func (x indexes) has(i int) bool {
	_, in := x.find(i)
	return in
}

// add returns the set with i in it.
func (x indexes) add(i int) indexes {
	at, in := x.find(i)
	if in {
		return x
	}
	out := slices.Insert(slices.Clone(x), at, indexRange{i, i})
	if at+1 < len(out) && out[at+1].first == i+1 {
		out[at].last = out[at+1].last
		out = slices.Delete(out, at+1, at+2)
	}
	if at > 0 && out[at-1].last == i-1 {
		out[at-1].last = out[at].last
		out = slices.Delete(out, at, at+1)
	}
	return out
}

// count returns how many numbers are in the set.
func (x indexes) count() int {
	n := 0
	for _, r := range x {
		n += r.last - r.first + 1
	}
	return n
}

// after returns i, or the first number behind the range that holds it.
func (x indexes) after(i int) int {
	if at, in := x.find(i); in {
		return x[at].last + 1
	}
	return i
}

// common returns how many numbers are in both sets.
func (x indexes) common(o indexes) int {
	n := 0
	for i, j := 0, 0; i < len(x) && j < len(o); {
		n += max(0, min(x[i].last, o[j].last)-max(x[i].first, o[j].first)+1)
		if x[i].last < o[j].last {
			i++
		} else {
			j++
		}
	}
	return n
}
