package testenv

import (
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var nolog = log.New(io.Discard, "", 0)

var built sync.Map // package path -> program

type program struct {
	once sync.Once
	path string
	err  error
	out  []byte
}

// removePrograms removes what Program built.
func removePrograms() {
	built.Range(func(_, p any) bool {
		if path := p.(*program).path; path != "" {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		return true
	})
}

// Program builds a static program of this module and returns its path. It is
// built once per test binary, and removed by Main.
//
// SHOAL_BIN in the environment names a cmd/shoal that was built already.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	if path := os.Getenv("SHOAL_BIN"); path != "" && strings.HasSuffix(pkg, "/cmd/shoal") {
		return path
	}
	p, _ := built.LoadOrStore(pkg, &program{})
	own := p.(*program)
	own.once.Do(func() {
		var dir string
		if dir, own.err = os.MkdirTemp("", "shoal-build-"); own.err != nil {
			return
		}
		own.path = filepath.Join(dir, filepath.Base(pkg))
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", own.path, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		own.out, own.err = cmd.CombinedOutput()
	})
	if own.err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, own.err, own.out)
	}
	return own.path
}

// Keeper returns the shoal-keeper program, built on the spot.
func Keeper(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(Program(t, "github.com/shoal-dev/shoal/cmd/shoal-keeper"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
