package loop

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun(t *testing.T) {
	tests := []struct {
		name  string
		cfg   Config
		wake  time.Duration // what the step asks for, 0: nothing
		pokes []time.Duration
		total time.Duration
		want  []time.Duration
	}{
		{"once when nothing happens", Config{}, 0, nil, time.Hour, []time.Duration{0}},
		{"every Max", Config{Max: 10 * time.Second}, 0, nil, 25 * time.Second, []time.Duration{0, 10 * time.Second, 20 * time.Second}},
		{"a poke at once", Config{}, 0, []time.Duration{3 * time.Second}, time.Minute, []time.Duration{0, 3 * time.Second}},
		{"pokes never faster than Min", Config{Min: 5 * time.Second}, 0, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, time.Minute, []time.Duration{0, 5 * time.Second}},
		{"a wake before Max", Config{Max: time.Minute}, 20 * time.Second, nil, 45 * time.Second, []time.Duration{0, 20 * time.Second, 40 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tt.total)
				defer cancel()
				poke := make(chan struct{}, 1)
				for _, at := range tt.pokes {
					time.AfterFunc(at, func() { Poke(poke) })
				}
				var got []time.Duration
				Run(ctx, tt.cfg, func(context.Context) time.Time {
					got = append(got, time.Since(start))
					if tt.wake == 0 {
						return time.Time{}
					}
					return time.Now().Add(tt.wake)
				}, poke)
				if len(got) != len(tt.want) {
					t.Fatalf("ran at %v, want %v", got, tt.want)
				}
				for i := range got {
					if got[i] != tt.want[i] {
						t.Fatalf("ran at %v, want %v", got, tt.want)
					}
				}
			})
		})
	}
}
