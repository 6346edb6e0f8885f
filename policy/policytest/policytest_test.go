package policytest_test

import (
	"testing"

	"github.com/shoal-dev/shoal/policy/policytest"
)

func TestMemory(t *testing.T) {
	policytest.Suite(t, func(*testing.T) policytest.Machine {
		m := &policytest.Memory{}
		return policytest.Machine{
			Open: func() policytest.Rules { return m }, Held: func() []string { return policytest.Lines(m.Held()) }, Flush: m.Flush,
		}
	})
}
