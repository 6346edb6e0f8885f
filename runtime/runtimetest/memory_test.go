package runtimetest_test

import (
	"io"
	"strings"
	"testing"

	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/runtimetest"
)

func TestMemory(t *testing.T) {
	runtimetest.Run(t, func(*testing.T) runtimetest.Fixture {
		return runtimetest.Fixture{
			Engine:  runtimetest.NewMemory("example.com/busybox:1"),
			Image:   "example.com/busybox:1",
			Archive: func(_ *testing.T, name string) io.Reader { return strings.NewReader(name) },
			Sandbox: func(_ *testing.T, instance string) (string, runtime.Namespaces) {
				return "s-" + instance, runtime.Namespaces{}
			},
		}
	})
}
