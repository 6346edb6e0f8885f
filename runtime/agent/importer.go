package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	seen map[string]stamp // what was looked at last
	done map[string]stamp // what was imported, or refused
}

type stamp struct {
	size int64
	time time.Time
}

// importImages imports the archives in the images folder, those there now and
// those to come.
func (a *Agent) importImages(ctx context.Context) {
	im := &importer{a: a, dir: a.cfg.ImagesDir, seen: map[string]stamp{}, done: map[string]stamp{}}
	if err := os.MkdirAll(im.dir, 0o755); err != nil {
		a.nodeEvent("ImageImportFailed", err.Error())
		return
	}
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
		}
	}
}

// pass imports what is complete; it reports whether something may soon be.
func (im *importer) pass(ctx context.Context) (unsettled bool) {
	entries, err := os.ReadDir(im.dir)
	if err != nil {
		im.a.nodeEvent("ImageImportFailed", err.Error())
		return false
	}
	for _, entry := range entries {
		if ctx.Err() != nil {
			return false
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || !archive(entry.Name()) {
			continue
		}
		now := stamp{info.Size(), info.ModTime()}
		switch {
		case im.done[entry.Name()] == now:
		case time.Since(now.time) >= settled || im.seen[entry.Name()] == now:
			if im.load(ctx, entry.Name()) {
				im.done[entry.Name()] = now
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

// load imports one archive. It reports false when trying again may help: while
// the engine does not answer.
func (im *importer) load(ctx context.Context, name string) (done bool) {
	path := filepath.Join(im.dir, name)
	file, err := os.Open(path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer file.Close()
	regards := corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: im.a.cfg.Node}
	names, err := im.a.cfg.Engine.Import(ctx, file)
	switch {
	case ctx.Err() != nil:
		return false
	case errors.Is(err, runtime.ErrUnavailable):
		return false
	case err != nil:
		im.a.record(regards, corev1.EventTypeWarning, "ImageImportFailed", fmt.Sprintf("%s: %v", path, err))
		return true
	}
	im.a.record(regards, corev1.EventTypeNormal, "ImageImported", fmt.Sprintf("%s: %s", path, strings.Join(names, ", ")))
	im.a.pulls.recheck()
	im.a.pokeAll()
	return true
}
