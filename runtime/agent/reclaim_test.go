package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoal-dev/shoal/internal/testenv"
	"github.com/shoal-dev/shoal/runtime"
	"github.com/shoal-dev/shoal/runtime/containerd"
)

// crowded is an engine whose disk is as full as the test says.
type crowded struct {
	*containerd.Engine
	available atomic.Int64 // of 1000
	deletion  int64        // what each deletion frees
}

func (c *crowded) ImageDisk(context.Context) (runtime.Filesystem, error) {
	return runtime.Filesystem{Path: "/images", Capacity: 1000, Available: c.available.Load()}, nil
}

func (c *crowded) DeleteImage(ctx context.Context, names []string) error {
	c.available.Add(c.deletion)
	return c.Engine.DeleteImage(ctx, names)
}

func (h *house) holds(name string) bool {
	for _, i := range h.agent.Node(context.Background()).Images {
		if slices.Contains(i.Names, name) {
			return true
		}
	}
	return false
}

// A disk that fills up costs the images that nobody needs, and no others, and
// what cannot be freed is said.
func TestImagesAreReclaimed(t *testing.T) {
	h := newHouse(t)
	h.stop()
	engine, err := containerd.New(containerd.Config{Address: h.containerd.Address, RunDir: h.cfg.RunDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = engine.Close() }) // it ends with the test
	for _, name := range []string{"example.com/a-spare:1", "example.com/b-spare:1", "example.com/assigned:1", "example.com/committed:1"} {
		file := testenv.Archive(t, testenv.Dir(t), name, testenv.Image(t, testenv.Busybox()))
		importFile(t, engine, file)
	}
	testenv.Archive(t, filepath.Join(h.cfg.StateDir, "images"), "example.com/archived:1", testenv.Image(t, testenv.Busybox()))
	full := &crowded{Engine: engine, deletion: 100}
	full.available.Store(500)
	var unknown atomic.Bool
	unknown.Store(true)
	h.cfg.Engine, h.cfg.Reclaim = full, 20*time.Millisecond
	h.cfg.ImageLimits = runtime.ImageLimits{High: 85, Low: 80}
	h.cfg.NeededImages = func() ([]string, error) {
		if unknown.Load() {
			return nil, errors.New("no commit is in force yet")
		}
		return []string{"example.com/committed:1"}, nil
	}
	h.start()
	runs := pod("runs", "exec sleep 1000")
	waiting := pod("waits", "exec sleep 1000")
	waiting.Object.Spec.Containers[0].Image = "example.com/assigned:1"
	h.run(runs, waiting)
	h.eventually(runs, soon, "ready", ready)
	h.eventually(waiting, soon, "ready", ready)
	testenv.Eventually(t, soon, "the archive is imported", func() bool { return h.holds("example.com/archived:1") })

	full.available.Store(110)
	testenv.Eventually(t, soon, "the failure is told", func() bool { return strings.Contains(h.story("n1"), "ImageGCFailed") })
	if alarms := h.agent.Alarms(); len(alarms) != 1 || !strings.Contains(alarms[0], "no commit is in force yet") {
		t.Errorf("alarms: got %q", alarms)
	}
	if !h.holds("example.com/a-spare:1") {
		t.Error("an image was deleted while nobody knew what is needed")
	}
	unknown.Store(false)
	testenv.Eventually(t, soon, "one image is deleted", func() bool { return !h.holds("example.com/a-spare:1") })
	testenv.Eventually(t, soon, "the alarm ends", func() bool { return len(h.agent.Alarms()) == 0 })
	if !h.holds("example.com/b-spare:1") {
		t.Error("more was deleted than had to be")
	}

	full.deletion = 0
	full.available.Store(50)
	testenv.Eventually(t, soon, "what cannot be freed is told", func() bool {
		return strings.Contains(h.story("n1"), "FreeDiskSpaceFailed: Failed to garbage collect required amount of images. Attempted to free 150 bytes")
	})
	if h.holds("example.com/b-spare:1") {
		t.Error("an image that nobody needs is still there")
	}
	for _, name := range []string{image, "example.com/assigned:1", "example.com/committed:1", "example.com/archived:1"} {
		if !h.holds(name) {
			t.Errorf("%s was deleted", name)
		}
	}
	if alarms := h.agent.Alarms(); len(alarms) != 1 || !strings.Contains(alarms[0], "95 % full, and no more images can be deleted: 4 are needed") {
		t.Errorf("alarms: got %q", alarms)
	}
	full.available.Store(500)
	testenv.Eventually(t, soon, "the alarm ends", func() bool { return len(h.agent.Alarms()) == 0 })
	importFile(t, engine, testenv.Archive(t, testenv.Dir(t), "example.com/a-spare:1", testenv.Image(t, testenv.Busybox())))
	if err := h.agent.DeleteUnusedImages(t.Context()); err != nil || h.holds("example.com/a-spare:1") || !h.holds("example.com/committed:1") {
		t.Errorf("with half the disk free, unused images were not deleted, or others were: %v", err)
	}
	h.removeAll()
}

func importFile(t *testing.T, engine *containerd.Engine, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	if _, err := engine.Import(t.Context(), file); err != nil {
		t.Fatal(err)
	}
}
