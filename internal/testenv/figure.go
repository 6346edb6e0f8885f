package testenv

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// figure is one line of a benchmark's output. Value is the median.
type figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	N     int     `json:"n"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Min   float64 `json:"min"`
	Note  string  `json:"note,omitempty"`
}

// Report prints what a benchmark has measured, as one line of JSON.
func Report(b *testing.B, name, unit, note string, values ...float64) {
	b.Helper()
	if len(values) == 0 {
		b.Fatalf("%s: nothing was measured", name)
	}
	slices.Sort(values)
	at := func(q float64) float64 {
		v := values[int(math.Ceil(q*float64(len(values))))-1]
		return math.Round(v*1000) / 1000
	}
	line, err := json.Marshal(figure{Name: name, Value: at(0.5), Unit: unit, N: len(values), P50: at(0.5), P99: at(0.99), Min: at(0.01), Note: note})
	if err != nil {
		b.Fatal(err)
	}
	fmt.Println(string(line))
}

// RSS returns the memory of a process that is in RAM, in MiB.
func RSS(b *testing.B, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.SplitSeq(string(raw), "\n") {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "VmRSS:" {
			kib, _ := strconv.ParseFloat(words[1], 64)
			return kib / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

// CPUTime returns the processor time of a process, in seconds.
func CPUTime(b *testing.B, pid int) float64 {
	b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(raw[strings.LastIndex(string(raw), ")")+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}
