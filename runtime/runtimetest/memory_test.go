package runtimetest_test

import (
	"testing"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

func TestMemory(t *testing.T) {
	runtimetest.Run(t, func(*testing.T) runtimetest.Fixture {
		return runtimetest.Fixture{
			Engine: runtimetest.NewMemory("example.com/busybox:1"),
			Image:  "example.com/busybox:1",
			Sandbox: func(_ *testing.T, instance string) (string, runtime.Namespaces) {
				return "s-" + instance, runtime.Namespaces{}
			},
		}
	})
}
