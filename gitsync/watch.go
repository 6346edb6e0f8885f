package gitsync

import (
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watch tells when the references of a local repository change. For other
// repositories it is silent.
type watch struct {
	target  target
	watcher *fsnotify.Watcher // nil: not possible, or not local
	pokes   chan struct{}
	done    chan struct{}
}

// newWatch starts to watch. Without inotify (the limit of watches is reached)
// there is still the poll.
func newWatch(t target) *watch {
	w := &watch{target: t, pokes: make(chan struct{}, 1), done: make(chan struct{})}
	if t.kind == localKind {
		w.watcher, _ = fsnotify.NewWatcher()
	}
	if w.watcher == nil {
		close(w.done)
		return w
	}
	go w.filter()
	return w
}

func (w *watch) changes() <-chan struct{} { return w.pokes }

// close ends the watch and waits for it.
func (w *watch) close() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
	<-w.done
}

// filter lets through what concerns references: Git writes a .lock file and
// renames it.
func (w *watch) filter() {
	defer close(w.done)
	for {
		select {
		case event, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			name := filepath.Base(event.Name)
			inRefs := strings.Contains(event.Name, string(filepath.Separator)+"refs")
			if !strings.HasSuffix(name, ".lock") && (inRefs || name == "HEAD" || name == "packed-refs" || name == ".git") {
				poke(w.pokes)
			}
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			poke(w.pokes) // events were lost: look
		}
	}
}

// cover adds the folders that hold references now. Folders that are watched
// already stay; those that went are forgotten by the kernel.
func (w *watch) cover() {
	if w.watcher == nil {
		return
	}
	dirs, err := gitDirs(w.target.local)
	if err != nil {
		_ = w.watcher.Add(w.target.local) // it may become a repository
		return
	}
	_ = w.watcher.Add(dirs.own)
	_ = w.watcher.Add(dirs.common)
	_ = filepath.WalkDir(filepath.Join(dirs.common, "refs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = w.watcher.Add(path)
		}
		return nil
	})
}
