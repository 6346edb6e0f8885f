package gitsync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/shoal-dev/shoal/api"
)

// rememberedCommits is how many older snapshots At keeps.
const rememberedCommits = 8

// Repo follows one repository. All methods may be called concurrently.
type Repo struct {
	target target
	source source
	pokes  chan struct{}
	change chan struct{}

	peers   func(unit string) []Peer
	serving chan struct{} // who is being served

	// What only Run uses.
	mirror *mirror
	judged plumbing.Hash // the last tip that got a verdict
	strays map[stray]bool
	given  map[api.Commit]string // by which node the commit in force was given, when the repository was not reached

	// read guards a second view of the mirror for those who cannot wait until
	// Run has spoken to a slow repository. It is held while pins are written
	// and while the mirror is swapped.
	read   sync.Mutex
	reader *mirror
	older  []api.Snapshot // that At returned, newest first

	state    sync.Mutex // guards what follows; held for a moment
	latest   api.Snapshot
	status   api.UnitStatus
	accepted *memory
	tip      *memory // of a refused tip
}

// Open checks cfg, opens the mirror and reads the commit that was last
// accepted, if there is one. It does not need the repository: only Run speaks
// to it.
func Open(cfg Config) (*Repo, error) {
	t, err := resolve(cfg)
	if err != nil {
		return nil, err
	}
	return open(t)
}

func open(t target) (*Repo, error) {
	// Another repository, branch or path is another mirror: what was accepted
	// from one says nothing about the other.
	id := api.SafeHash(t.shown+"\n"+t.Ref+"\n"+t.Path, 12)
	m, err := openMirror(filepath.Join(t.Dir, "mirror-"+id))
	if err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	reader, err := createMirror(m.dir)
	if err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	r := &Repo{
		target: t, source: newSource(t), mirror: m, reader: reader,
		pokes: make(chan struct{}, 1), change: make(chan struct{}, 1),
		serving: make(chan struct{}, serveAtOnce), strays: map[stray]bool{}, given: map[api.Commit]string{},
		status: api.UnitStatus{Unit: t.Unit, URL: t.shown, Ref: t.Ref, Path: shownPath(t.Path)},
	}
	r.resume(context.Background())
	return r, nil
}

// shownPath writes the root of the repository as "".
func shownPath(path string) string {
	if path == "." {
		return ""
	}
	return path
}

// resume brings the accepted commit back into force. When it cannot be read or
// is no longer valid, nothing is known, which removes nothing.
func (r *Repo) resume(ctx context.Context) {
	hash := r.mirror.ref(acceptedRef)
	if hash.IsZero() {
		return
	}
	v, info, err := r.judge(ctx, r.mirror, hash)
	if err != nil {
		r.status.Error = err.Error()
		return
	}
	r.status.Tip = info
	r.judged = hash
	if api.Refused(v.problems) {
		r.status.Problems = v.problems
		return
	}
	r.accepted = v.memory
	r.latest = v.snapshot
	r.status.Accepted, r.status.Problems, r.status.InForce = info, v.problems, time.Now()
}

// Latest returns the last accepted commit as desired state; the zero Snapshot
// while there is none.
func (r *Repo) Latest() api.Snapshot {
	r.state.Lock()
	defer r.state.Unlock()
	return r.latest
}

// Status returns how far the unit follows its repository.
func (r *Repo) Status() []api.UnitStatus {
	r.state.Lock()
	defer r.state.Unlock()
	return []api.UnitStatus{r.status}
}

// Poke says that the repository may have changed; Run looks at once.
func (r *Repo) Poke() { poke(r.pokes) }

// Changed carries a poke after Latest or Status changed.
func (r *Repo) Changed() <-chan struct{} { return r.change }

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Keep pins the commits that pods still run from, and only those besides the
// accepted one and the tip. Commits that are not in the mirror are left out.
func (r *Repo) Keep(commits []api.Commit) error {
	r.read.Lock()
	defer r.read.Unlock()
	r.reader.store.Reindex()
	if err := r.reader.keep(commits); err != nil {
		return fmt.Errorf("git: %w", err)
	}
	return nil
}

// Has reports whether a commit was fetched, now or before.
func (r *Repo) Has(commit api.Commit) bool {
	if r.Latest().Units[r.target.Unit] == commit {
		return true
	}
	r.read.Lock()
	defer r.read.Unlock()
	r.reader.store.Reindex() // Run may have fetched since
	_, err := r.reader.commit(plumbing.NewHash(string(commit)))
	return err == nil
}

// Previous returns the commit that was in force before the one that is, "" when
// none is known. It survives restarts, and stays in the mirror.
func (r *Repo) Previous() api.Commit {
	r.read.Lock()
	defer r.read.Unlock()
	before := r.reader.ref(acceptedRef)
	if api.Commit(before.String()) == r.Latest().Units[r.target.Unit] {
		before = r.reader.ref(previousRef)
	} // else what is in force is not written down yet
	if before.IsZero() {
		return ""
	}
	return api.Commit(before.String())
}

// At returns a commit as desired state. It must have been fetched and be
// without mistakes; pods that run an older template find it here.
func (r *Repo) At(commit api.Commit) (api.Snapshot, error) {
	if s := r.Latest(); s.Units[r.target.Unit] == commit {
		return s, nil
	}
	r.read.Lock()
	defer r.read.Unlock()
	for _, s := range r.older {
		if s.Units[r.target.Unit] == commit {
			return s, nil
		}
	}
	r.reader.store.Reindex() // Run may have fetched since
	v, _, err := r.judge(context.Background(), r.reader, plumbing.NewHash(string(commit)))
	if err != nil {
		return api.Snapshot{}, fmt.Errorf("git: %w", err)
	}
	if api.Refused(v.problems) {
		return api.Snapshot{}, fmt.Errorf("git: commit %s was never in force: %w", commit.Short(), api.InvalidError(v.problems))
	}
	r.older = append([]api.Snapshot{v.snapshot}, r.older[:min(len(r.older), rememberedCommits-1)]...)
	return v.snapshot, nil
}

// judge reads a commit from a view of the mirror.
func (r *Repo) judge(ctx context.Context, m *mirror, hash plumbing.Hash) (verdict, api.CommitInfo, error) {
	c, err := m.commit(hash)
	if err != nil {
		return verdict{}, api.CommitInfo{}, err
	}
	r.state.Lock()
	var known []*memory
	for _, m := range []*memory{r.accepted, r.tip} {
		if m != nil {
			known = append(known, m)
		}
	}
	r.state.Unlock()
	trees := &tree{root: c.TreeHash, objects: m}
	v, err := judge(ctx, trees, r.target.Unit, api.Commit(hash.String()), r.target.Path, known...)
	return v, describe(c), err
}

// Run follows the repository until ctx ends; nothing else ends it. What goes
// wrong is in Status.
func (r *Repo) Run(ctx context.Context) error {
	watch := newWatch(r.target)
	defer watch.close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.pokes:
		case <-watch.changes():
		}
		if err := r.sync(ctx, watch); err != nil {
			failures++
		} else {
			failures = 0
		}
		timer.Reset(pause(r.target.Poll, failures))
	}
}

// pause is the time to the next attempt: the poll interval, or after a failure
// first a second and then twice as long each time, give or take a tenth so that
// nodes do not ask all at once.
func pause(poll time.Duration, failures int) time.Duration {
	wait := poll
	if failures > 0 {
		wait = min(time.Second<<min(failures-1, 16), maxBackoff)
	}
	return wait - wait/10 + rand.N(wait/5+1)
}

// sync looks at the repository once and judges what is new.
func (r *Repo) sync(ctx context.Context, watch *watch) error {
	watch.cover() // before reading: what changes from here on pokes again
	err := r.advance(ctx)
	if damaged(err) && ctx.Err() == nil {
		// The mirror has lost something. A fresh one costs a fetch.
		if err = r.replace(r.mirror.discard); err == nil {
			r.judged = plumbing.ZeroHash
			err = r.advance(ctx)
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.report(func(s *api.UnitStatus) bool {
		text := ""
		if err != nil {
			text = err.Error()
		} else {
			s.Checked = time.Now()
		}
		changed := s.Error != text
		s.Error = text
		return changed
	})
	return err
}

// replace puts another mirror in the place of the one that is there.
func (r *Repo) replace(make func() (*mirror, error)) error {
	r.read.Lock()
	defer r.read.Unlock()
	fresh, err := make()
	r.mirror = fresh
	if err != nil {
		return err
	}
	r.reader, err = createMirror(fresh.dir)
	return err
}

// report changes the state, and pokes when the change is worth it.
func (r *Repo) report(change func(*api.UnitStatus) bool) {
	r.state.Lock()
	changed := change(&r.status)
	r.state.Unlock()
	if changed {
		poke(r.change)
	}
}

// advance fetches the tip and gives it a verdict.
func (r *Repo) advance(ctx context.Context) error {
	tip, err := r.source.fetch(ctx, r.mirror)
	if err != nil {
		err = explain(r.target, errors.Join(err, sweep(r.mirror.dir)))
		commit, node, others := r.fromPeers(ctx)
		if node == "" {
			return r.told(err, others)
		}
		r.given = map[api.Commit]string{api.Commit(commit.String()): node}
		return r.told(errors.Join(err, r.consider(ctx, commit)), nil)
	}
	return r.consider(ctx, tip)
}

// consider gives a tip that is in the mirror a verdict.
func (r *Repo) consider(ctx context.Context, tip plumbing.Hash) error {
	if tip == r.judged {
		return r.persist()
	}
	if err := r.mirror.setRef(tipRef, tip); err != nil {
		return err
	}
	v, info, err := r.judge(ctx, r.mirror, tip)
	if err != nil {
		return fmt.Errorf("read commit %s: %w", api.Commit(tip.String()).Short(), err)
	}
	r.judged = tip
	if api.Refused(v.problems) {
		r.report(func(s *api.UnitStatus) bool {
			r.tip = v.memory
			s.Tip, s.Problems = info, v.problems
			return true
		})
		return nil
	}
	r.report(func(s *api.UnitStatus) bool {
		r.latest, r.accepted, r.tip = v.snapshot, v.memory, nil
		s.Tip, s.Accepted, s.Problems, s.InForce = info, info, v.problems, time.Now()
		return true
	})
	return errors.Join(r.persist(), r.tidy())
}

// persist makes the commit in force the one that a restart begins with. Its
// objects are on the disk before the reference is; until both are, a restart
// begins with the commit before.
func (r *Repo) persist() error {
	commit := r.Latest().Units[r.target.Unit]
	hash := plumbing.NewHash(string(commit))
	if commit == "" || r.mirror.ref(acceptedRef) == hash {
		return nil
	}
	if err := flush(r.mirror.dir); err != nil {
		return fmt.Errorf("write commit %s: %w", commit.Short(), err)
	}
	if before := r.mirror.ref(acceptedRef); !before.IsZero() {
		if err := r.mirror.setRef(previousRef, before); err != nil {
			return err
		}
	}
	return r.mirror.setRef(acceptedRef, hash)
}

// tidy keeps the state folder small. It runs after a commit was accepted.
func (r *Repo) tidy() error {
	err := removeOthers(r.mirror.dir)
	if r.mirror.crowded() {
		err = errors.Join(err, r.replace(r.mirror.renew))
	}
	return err
}
