package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-dev/shoal/api"
	"github.com/shoal-dev/shoal/gitsync"
	"github.com/shoal-dev/shoal/gitsync/manifest"
)

// origin is the Git host: commits in one line.
type origin struct {
	mu      sync.Mutex
	commits []commit
	away    map[string]bool // hosts that do not reach it
}

// commit is one commit with all its files.
type commit struct {
	info     api.CommitInfo
	snapshot api.Snapshot
	files    map[string]string
}

// push adds a commit. Manifests that nobody would accept are an error.
func (o *origin) push(files map[string]string, now time.Time) (api.Commit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hash := api.Commit(fmt.Sprintf("%040x", len(o.commits)+1))
	var decoded []manifest.Decoded
	for _, name := range sortedKeys(files) {
		decoded = append(decoded, manifest.Decode(manifest.File{Path: name, Data: []byte(files[name])}))
	}
	snapshot, problems := manifest.Assemble("main", hash, decoded)
	if len(problems) > 0 {
		return "", fmt.Errorf("commit: %w", problems[0])
	}
	o.commits = append(o.commits, commit{
		info:     api.CommitInfo{Commit: hash, Author: "sim", Subject: strings.Join(sortedKeys(files), " "), Time: now},
		snapshot: snapshot, files: files,
	})
	return hash, nil
}

// tip returns the newest commit that a host can get.
func (o *origin) tip(host string) (commit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away[host] || o.away["*"] {
		return commit{}, errors.New("fetch sim: the host does not answer")
	}
	if len(o.commits) == 0 {
		return commit{}, errors.New("fetch sim: the repository has no commits yet")
	}
	return o.commits[len(o.commits)-1], nil
}

// newest returns the newest commit, whoever can get it.
func (o *origin) newest() commit {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.commits) == 0 {
		return commit{}
	}
	return o.commits[len(o.commits)-1]
}

// lastTwo returns the newest commit and the one before it.
func (o *origin) lastTwo() (newest, before commit) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.commits); n > 1 {
		return o.commits[n-1], o.commits[n-2]
	}
	return commit{}, commit{}
}

// at returns a commit; the zero one when there is none.
func (o *origin) at(hash api.Commit) commit {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := slices.IndexFunc(o.commits, func(c commit) bool { return c.info.Commit == hash })
	if i < 0 {
		return commit{}
	}
	return o.commits[i]
}

// cut says which hosts do not reach the Git host; "*" stands for all.
func (o *origin) cut(hosts ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = map[string]bool{}
	for _, h := range hosts {
		o.away[h] = true
	}
}

// poll is how often a node asks the Git host by itself.
const poll = 10 * time.Second

// mirror is a node's copy of the repository, which lasts as long as its disk.
type mirror struct {
	origin *origin
	host   string

	mu       sync.Mutex
	full     bool                // the disk takes no commit
	accepted map[api.Commit]bool // every commit that was ever in force here
	current  commit
	previous api.Commit // in force before
	inForce  time.Time
	checked  time.Time
	failed   string
	peers    func(unit string) []gitsync.Peer
	pokes    chan struct{}
	change   chan struct{}
}

// reopen returns the same mirror for the next daemon.
func (m *mirror) reopen() *mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pokes, m.change = make(chan struct{}, 1), make(chan struct{}, 1)
	return m
}

func (m *mirror) Run(ctx context.Context) error {
	m.mu.Lock()
	pokes := m.pokes
	m.mu.Unlock()
	for {
		m.fetch()
		select {
		case <-ctx.Done():
			return nil
		case <-pokes:
		case <-time.After(poll):
		}
	}
}

func (m *mirror) fetch() {
	tip, err := m.origin.tip(m.host)
	if err != nil {
		if given, found := m.ask(); found {
			tip, err = given, nil
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil && m.full && tip.info.Commit != m.current.info.Commit {
		err = errors.New("store the commit: no space left on device")
	}
	failed := ""
	if err != nil {
		failed = err.Error()
	} else {
		m.checked = time.Now()
	}
	news := failed != m.failed
	m.failed = failed
	if err == nil && tip.info.Commit != m.current.info.Commit {
		m.previous = m.current.info.Commit
		m.current, m.inForce, news = tip, time.Now(), true
		m.accepted[tip.info.Commit] = true
	}
	if news {
		select {
		case m.change <- struct{}{}:
		default:
		}
	}
}

// fill fills the disk, or makes space on it.
func (m *mirror) fill(full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.full = full
}

func (m *mirror) filled() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.full
}

// ask returns the newest commit that another node has and this one has not.
func (m *mirror) ask() (newest commit, found bool) {
	m.mu.Lock()
	peers, own := m.peers, m.current.info.Commit
	m.mu.Unlock()
	for _, p := range peers("main") {
		if p.Commit <= own || p.Commit <= newest.info.Commit { // they are numbers
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		stream, err := p.Open(ctx)
		if err == nil {
			_, err = io.WriteString(stream, "?")
		}
		hash := make([]byte, 40)
		if err == nil {
			_, err = io.ReadFull(stream, hash)
		}
		cancel()
		if err == nil && api.Commit(hash) > own {
			newest, found = m.origin.at(api.Commit(hash)), true
		}
	}
	return newest, found
}

// Serve tells another node of this one's commit; the rest it has from origin.
func (m *mirror) Serve(_ context.Context, stream io.ReadWriter) error {
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil {
		return err
	}
	m.mu.Lock()
	hash := m.current.info.Commit
	m.mu.Unlock()
	_, err := io.WriteString(stream, string(hash))
	return err
}

// Follow says whom to ask.
func (m *mirror) Follow(peers func(string) []gitsync.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers = peers
}

func (m *mirror) Changed() <-chan struct{} { return m.change }

func (m *mirror) Poke() {
	select {
	case m.pokes <- struct{}{}:
	default:
	}
}

func (m *mirror) Latest() api.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current.snapshot
}

func (m *mirror) Status() []api.UnitStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return []api.UnitStatus{{
		Unit: "main", URL: "sim", Ref: "main", Accepted: m.current.info, Tip: m.current.info, Error: m.failed, Checked: m.checked, InForce: m.inForce,
	}}
}

func (m *mirror) At(hash api.Commit) (api.Snapshot, error) {
	if !m.accepts(hash) {
		return api.Snapshot{}, fmt.Errorf("commit %s is not in the mirror", hash.Short())
	}
	c := m.origin.at(hash)
	return c.snapshot, nil
}

// Previous returns the commit that was in force before.
func (m *mirror) Previous() api.Commit {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.previous
}

// Has reports whether the commit was ever in force here.
func (m *mirror) Has(hash api.Commit) bool { return m.accepts(hash) }

func (m *mirror) Keep([]api.Commit) error { return nil }

// force returns the commit that is in force, and since when.
func (m *mirror) force() (commit, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current, m.inForce
}

// accepts reports whether a commit was ever in force here.
func (m *mirror) accepts(hash api.Commit) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.accepted[hash]
}

// holds reports whether a commit that was ever in force here holds the template
// of a pod.
func (m *mirror) holds(p api.Pod) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for hash := range m.accepted {
		c := m.origin.at(hash)
		if object, found := workload(c.snapshot, p.Identity); found && object.Revision == p.Revision {
			return true
		}
	}
	return false
}

// workload returns the object that a pod is of.
func workload(s api.Snapshot, id api.Identity) (api.Object, bool) {
	for object := range s.Objects() {
		if object.GVK.Kind == id.Kind && object.Value.GetNamespace() == id.Namespace && object.Value.GetName() == id.Owner {
			return object, true
		}
	}
	return api.Object{}, false
}

// exclusive reports whether a pod must not run twice, as its commit says.
func (o *origin) exclusive(a api.Assignment) bool {
	c := o.at(a.Commit)
	object, found := workload(c.snapshot, a.Pod.Identity)
	return found && (a.Pod.Kind == "StatefulSet" || object.Value.GetAnnotations()["fleet.shoal.dev/exclusive"] == "true")
}
