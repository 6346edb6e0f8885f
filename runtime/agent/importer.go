package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"

	"github.com/shoal-dev/shoal/runtime"
)

// settled is how long an archive must not have changed before it is read.
const settled = 200 * time.Millisecond

// importer imports the archives of a folder, each once for every content.
type importer struct {
	a    *Agent
	dir  string
	seen map[string]stamp    // what was looked at last
	done map[string]imported // what was imported, or refused
}

// noteFile remembers what was imported, in the images folder.
const noteFile = ".imported.json"

// imported is one archive and the images that came of it; none when it was
// refused.
type imported struct {
	Stamp stamp    `json:"stamp"`
	Names []string `json:"names"`
}

type stamp struct {
	Size int64     `json:"size"`
	Time time.Time `json:"time"`
}

// importImages imports the archives in the images folder, those there now and
// those to come.
func (a *Agent) importImages(ctx context.Context) {
	im := &importer{a: a, dir: a.cfg.ImagesDir, seen: map[string]stamp{}, done: map[string]imported{}}
	first := sync.OnceFunc(func() { close(a.pulls.imported) })
	defer first()
	if a.cfg.Confined {
		return
	}
	impatient := time.AfterFunc(time.Minute, first) // an archive may be written for ever
	defer impatient.Stop()
	if err := os.MkdirAll(im.dir, 0o755); err != nil {
		a.nodeEvent("ImageImportFailed", err.Error())
		return
	}
	im.recall(ctx)
	var changes <-chan fsnotify.Event
	if watcher, err := fsnotify.NewWatcher(); err == nil {
		defer watcher.Close()
		if err := watcher.Add(im.dir); err != nil {
			a.nodeEvent("ImageImportFailed", fmt.Sprintf("watch %s: %v", im.dir, err))
		}
		changes = watcher.Events
	}
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			wait = settled
			continue // until nothing changes for a while
		case <-time.After(wait):
		}
		wait = time.Minute // where nothing watches
		if im.pass(ctx) {
			wait = settled
		} else {
			first()
		}
	}
}

// recall reads what was imported before this start, as far as the engine still
// holds it.
func (im *importer) recall(ctx context.Context) {
	b, err := os.ReadFile(filepath.Join(im.dir, noteFile))
	if err != nil || json.Unmarshal(b, &im.done) != nil {
		im.done = map[string]imported{}
	}
	for file, done := range im.done {
		for _, name := range done.Names {
			if _, err := im.a.cfg.Engine.Image(ctx, name); err != nil {
				delete(im.done, file)
				break
			}
		}
	}
}

// note writes down what was imported; without it everything is read again at
// the next start.
func (im *importer) note() {
	if b, err := json.Marshal(im.done); err == nil {
		_ = os.WriteFile(filepath.Join(im.dir, noteFile), b, 0o644)
	}
}

// pass imports what is complete; it reports whether something may soon be.
func (im *importer) pass(ctx context.Context) (unsettled bool) {
	entries, err := os.ReadDir(im.dir)
	if err != nil {
		im.a.nodeEvent("ImageImportFailed", err.Error())
		return false
	}
	defer im.tell(entries)
	for _, entry := range entries {
		if ctx.Err() != nil {
			return false
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !archive(entry.Name()) {
			continue
		}
		now := stamp{info.Size(), info.ModTime().UTC()}
		switch {
		case im.done[entry.Name()].Stamp == now:
		case time.Since(now.Time) >= settled || im.seen[entry.Name()] == now:
			if names, done := im.load(ctx, entry.Name()); done {
				im.done[entry.Name()] = imported{now, names}
				im.note()
			} else {
				unsettled = true
			}
		default:
			im.seen[entry.Name()] = now
			unsettled = true
		}
	}
	return unsettled
}

// tell says which images have an archive in the folder: those stay for as long as
// it does.
func (im *importer) tell(entries []fs.DirEntry) {
	archived := map[string][]string{}
	for _, entry := range entries {
		if done, known := im.done[entry.Name()]; known {
			archived[entry.Name()] = done.Names
		}
	}
	im.a.mu.Lock()
	defer im.a.mu.Unlock()
	im.a.archived = archived
}

// archive reports whether a file is meant to be imported. Names that begin with
// a dot or end otherwise are still being written.
func archive(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".oci", ".docker"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// load imports one archive and returns the names of its images. done is false
// when trying again may help: while the engine does not answer.
func (im *importer) load(ctx context.Context, name string) (names []string, done bool) {
	path := filepath.Join(im.dir, name)
	file, err := os.Open(path)
	if err != nil {
		return nil, errors.Is(err, fs.ErrNotExist)
	}
	defer file.Close() //nolint:errcheck // only read
	regards := im.a.node()
	names, err = im.a.cfg.Engine.Import(ctx, file)
	switch {
	case ctx.Err() != nil:
		return nil, false
	case errors.Is(err, runtime.ErrUnavailable):
		return nil, false
	case err != nil:
		im.a.record(regards, corev1.EventTypeWarning, "ImageImportFailed", fmt.Sprintf("%s: %v", path, err))
		return names, true
	}
	im.a.record(regards, corev1.EventTypeNormal, "ImageImported", fmt.Sprintf("%s: %s", path, strings.Join(names, ", ")))
	im.a.pulls.recheck()
	im.a.pokeAll()
	return names, true
}
