package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/daemon"
	"github.com/shoal-dev/shoal/scheduler"
)

// journal keeps what was decided, and from what. Any entry can be decided again,
// whatever the goroutines did that led to it.
type journal struct {
	git *origin

	mu      sync.Mutex
	entries []entry
}

// longest is how many decisions are kept.
const longest = 2000

// entry is one decision. The snapshot is that of a commit.
type entry struct {
	Node      string              `json:"node"`
	Commit    api.Commit          `json:"commit"`
	Board     api.Board           `json:"board"`
	Facts     api.Facts           `json:"facts"`
	Authority scheduler.Authority `json:"authority"`
	Now       time.Time           `json:"now"`
	Decision  scheduler.Decision  `json:"decision"`
}

// book is a journal on disk.
type book struct {
	Commits []map[string]string `json:"commits"` // files of each
	Entries []entry             `json:"entries"`
}

func newJournal(git *origin) *journal { return &journal{git: git} }

func (j *journal) add(node string, t daemon.Turn) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.entries) == longest {
		j.entries = append([]entry(nil), j.entries[longest/2:]...)
	}
	j.entries = append(j.entries, entry{node, t.Snapshot.Units["main"], t.Board, t.Facts, t.Authority, t.Now, t.Decision})
}

// bytes is the journal as it is kept on disk.
func (j *journal) bytes() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	b := book{Entries: j.entries}
	for _, c := range j.git.commits {
		b.Commits = append(b.Commits, c.files)
	}
	return mustJSON(b)
}

// keep writes the journal to disk, and returns how to replay it.
func (j *journal) keep() string {
	file, err := os.CreateTemp("", "shoal-sim-*.json")
	if err == nil {
		_, err = file.Write(j.bytes())
		_ = file.Close() // it is for people to read
	}
	if err != nil {
		return fmt.Sprintf("the journal cannot be written: %v", err)
	}
	return fmt.Sprintf("decide all of it again: SHOAL_JOURNAL=%s go test ./internal/sim -run TestReplay -v", file.Name())
}

// replay decides everything in a journal again. It reports every decision to
// told, and returns an error for the first that comes out differently.
func replay(raw []byte, told func(e entry)) error {
	var b book
	if err := json.Unmarshal(raw, &b); err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	git := &origin{}
	for _, files := range b.Commits {
		if _, err := git.push(files, time.Time{}); err != nil {
			return err
		}
	}
	for i, e := range b.Entries {
		c := git.at(e.Commit) // the zero commit is what is not known yet
		got := scheduler.Schedule(c.snapshot, e.Board, e.Facts, e.Authority, e.Now)
		if !reflect.DeepEqual(plain(got), plain(e.Decision)) {
			return fmt.Errorf("decision %d, of %s at %s, comes out differently:\n%s\nwas\n%s", i, e.Node, e.Now, mustJSON(got), mustJSON(e.Decision))
		}
		told(e)
	}
	return nil
}

// plain is a value as JSON tells it.
func plain(v any) (out any) {
	_ = json.Unmarshal(mustJSON(v), &out) // it was just written
	return out
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("sim: " + err.Error()) // decisions are plain values
	}
	return raw
}
