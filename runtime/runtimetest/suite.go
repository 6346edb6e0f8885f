package runtimetest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/agent"
)

// Fixture is an engine to be tested, and what it needs around it.
type Fixture struct {
	Engine agent.Engine
	Image  string // one that the engine holds, with sh, sleep and echo
	// Archive returns what Import reads: the same image under another name.
	Archive func(t *testing.T, name string) io.Reader
	// Sandbox makes namespaces for a pod, and ends them with the test.
	Sandbox func(t *testing.T, instance string) (id string, ns runtime.Namespaces)
}

// Run tests that an engine does what the agent relies on. make is called once.
func Run(t *testing.T, make func(t *testing.T) Fixture) {
	s := suite{Fixture: make(t)}
	for _, test := range []struct {
		name string
		run  func(*testing.T, suite)
	}{
		{"a container runs and keeps its identity", testIdentity},
		{"an end is seen with its code", testEnd},
		{"an end that was recorded stays", testRecorded},
		{"a signal is delivered", testSignal},
		{"what cannot be run has ended", testCannotRun},
		{"an absent image is not found", testAbsentImage},
		{"a container without a command is refused", testRefused},
		{"what was created and not started is seen as such", testCreated},
		{"removal removes, twice", testRemoval},
		{"commands run in containers", testExec},
		{"a command is in the container's place", testExecPlace},
		{"a command reads its input to the end", testExecInput},
		{"a command has a terminal", testExecTerminal},
		{"a command is killed with its context", testExecKilled},
		{"a command waits for whoever reads it", testExecSlow},
		{"a command ends with its container", testExecEnds},
		{"what cannot be run is said", testExecMissing},
		{"only what runs has an input and a terminal", testConsole},
		{"an end pokes", testPoke},
		{"images are listed", testImages},
		{"an image is deleted", testImageDeleted},
		{"the disk of the images is known", testImageDisk},
		{"an image is shared", testImageShared},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

type suite struct{ Fixture }

func (s suite) spec(t *testing.T, command ...string) runtime.ContainerSpec {
	instance := uuid.NewString()
	id, ns := s.Sandbox(t, instance)
	spec := runtime.ContainerSpec{
		ID: runtime.ContainerID(instance, "app", 2, t.Name()),
		Assignment: api.Assignment{
			Pod:  api.Pod{Identity: api.Identity{Namespace: "ns", Kind: "Deployment", Owner: "web", Slot: "3"}, Revision: "r7", Instance: instance},
			Node: "n1", Unit: "main", Commit: "c0ffee", Claim: api.Claim{Epoch: 1, Index: 9},
			Created: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC),
		},
		Namespace: "ns", Pod: "web-r7-abcde", Name: "app", Attempt: 2, Crashes: 1, Sandbox: id,
		Image: s.Image, Command: command, Namespaces: ns,
	}
	t.Cleanup(func() {
		if err := s.Engine.Remove(context.Background(), spec.ID); err != nil {
			t.Error(err)
		}
		if err := s.Engine.RemovePod(instance); err != nil {
			t.Error(err)
		}
	})
	return spec
}

// run creates and starts a container.
func (s suite) run(t *testing.T, command ...string) runtime.ContainerSpec {
	t.Helper()
	spec := s.spec(t, command...)
	if err := s.Engine.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Engine.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	return spec
}

func (s suite) inspect(t *testing.T, id string) runtime.Held {
	t.Helper()
	held, err := s.Engine.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// ends waits for the end of a container.
func (s suite) ends(t *testing.T, id string) runtime.Held {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		held := s.inspect(t, id)
		if held.State == runtime.ContainerExited {
			return held
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not end: %+v", held)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func testIdentity(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	held := s.inspect(t, spec.ID)
	if held.State != runtime.ContainerRunning || held.PID == 0 || time.Since(held.Started) > time.Minute {
		t.Errorf("state: got %+v", held)
	}
	if !cmp.Equal(held.Assignment, spec.Assignment) {
		t.Errorf("assignment: got %+v, want %+v", held.Assignment, spec.Assignment)
	}
	if held.Name != "app" || held.Attempt != 2 || held.Crashes != 1 || held.Sandbox != spec.Sandbox ||
		held.Namespace != "ns" || held.Pod != "web-r7-abcde" || held.Init {
		t.Errorf("identity: got %+v", held)
	}
	if !strings.Contains(held.ImageID, "@sha256:") {
		t.Errorf("image ID: got %q", held.ImageID)
	}
	all, err := s.Engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(h runtime.Held) bool { return h.ID == spec.ID })
	if i < 0 || all[i].State != runtime.ContainerRunning || !cmp.Equal(all[i].Assignment, held.Assignment) {
		t.Errorf("listed: got %+v", all)
	}
}

func testEnd(t *testing.T, s suite) {
	for code, reason := range map[int32]string{0: runtime.EndedCompleted, 3: runtime.EndedError} {
		spec := s.run(t, "sh", "-c", "exit "+string('0'+code))
		held := s.ends(t, spec.ID)
		if held.ExitCode != code || held.Reason != reason || held.Recorded || held.Finished.Before(held.Started) {
			t.Errorf("exit %d: got %+v", code, held.Container)
		}
	}
}

func testRecorded(t *testing.T, s suite) {
	spec := s.run(t, "sh", "-c", "exit 3")
	c := s.ends(t, spec.ID).Container
	c.Started, c.Message = c.Started.Add(-time.Hour), strings.Repeat("words ", 2000)
	if err := s.Engine.Record(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	held := s.inspect(t, spec.ID)
	if held.State != runtime.ContainerExited || !held.Recorded || held.ExitCode != 3 || held.Reason != runtime.EndedError ||
		!held.Started.Equal(c.Started) || !held.Finished.Equal(c.Finished) || !strings.HasPrefix(held.Message, "words words") {
		t.Errorf("got %+v", held.Container)
	}
}

func testSignal(t *testing.T, s suite) {
	spec := s.run(t, "sh", "-c", "trap 'exit 7' TERM; touch /tmp/ready; while true; do sleep 0.02; done")
	deadline := time.Now().Add(10 * time.Second)
	for held := s.inspect(t, spec.ID); held.State == runtime.ContainerRunning && time.Now().Before(deadline); held = s.inspect(t, spec.ID) {
		if err := s.Engine.Kill(t.Context(), spec.ID, syscall.SIGTERM, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // until the trap is set
	}
	if held := s.ends(t, spec.ID); held.ExitCode != 7 {
		t.Errorf("TERM: got %+v", held.Container)
	}
	if err := s.Engine.Kill(t.Context(), spec.ID, syscall.SIGTERM, false); err != nil {
		t.Errorf("a second TERM: %v", err)
	}
	spec = s.run(t, "sleep", "1000")
	if err := s.Engine.Kill(t.Context(), spec.ID, syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if held := s.ends(t, spec.ID); held.ExitCode != 137 {
		t.Errorf("KILL: got %+v", held.Container)
	}
}

func testCannotRun(t *testing.T, s suite) {
	spec := s.spec(t, "/no/such/program")
	err := s.Engine.Create(t.Context(), spec)
	if err == nil {
		_, err = s.Engine.Start(t.Context(), spec.ID)
	}
	if !errors.Is(err, runtime.ErrStart) {
		t.Errorf("got %v", err)
	}
	held := s.inspect(t, spec.ID)
	if held.State != runtime.ContainerExited || held.ExitCode != 128 || held.Reason != runtime.EndedStart || held.Message == "" {
		t.Errorf("got %+v", held.Container)
	}
}

func testAbsentImage(t *testing.T, s suite) {
	if _, err := s.Engine.Image(t.Context(), "example.com/absent:1"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Image: got %v", err)
	}
	spec := s.spec(t, "sleep", "1000")
	spec.Image = "example.com/absent:1"
	if err := s.Engine.Create(t.Context(), spec); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Create: got %v", err)
	}
	if _, err := s.Engine.Inspect(t.Context(), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Inspect: got %v", err)
	}
}

func testRefused(t *testing.T, s suite) {
	spec := s.spec(t)
	if err := s.Engine.Create(t.Context(), spec); !errors.Is(err, runtime.ErrConfig) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Engine.Inspect(t.Context(), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("it is held: %v", err)
	}
}

func testCreated(t *testing.T, s suite) {
	spec := s.spec(t, "sleep", "1000")
	if err := s.Engine.Create(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if held := s.inspect(t, spec.ID); held.State != runtime.ContainerCreated {
		t.Errorf("got %+v", held.Container)
	}
}

func testRemoval(t *testing.T, s suite) {
	spec := s.run(t, "sleep", "1000")
	for range 2 {
		if err := s.Engine.Remove(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Engine.Inspect(t.Context(), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Engine.Start(t.Context(), spec.ID); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Start: got %v", err)
	}
}

func testPoke(t *testing.T, s suite) {
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var seen []string
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Engine.Watch(ctx, func(id string) {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, id)
		}); err == nil {
			t.Error("Watch ended without an error")
		}
	})
	defer wg.Wait()
	defer cancel()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) { // the subscription takes effect at some time
		spec := s.run(t, "sh", "-c", "exit 0")
		s.ends(t, spec.ID)
		for range 20 {
			mu.Lock()
			found := slices.Contains(seen, spec.ID)
			mu.Unlock()
			if found {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	t.Errorf("no poke: %q", seen)
}
