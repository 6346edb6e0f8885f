package gitsync

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/shoal-dev/shoal/api"
)

// Bounds of an exchange between two nodes.
const (
	maxHistory   = 1000             // commits between what one has and what the other has
	exchangeTime = 30 * time.Second // for one exchange
	serveAtOnce  = 2                // exchanges that a node serves at the same time
	maxAsk       = 4 << 10          // bytes of a question
)

// A Peer is another node that has accepted a commit.
type Peer struct {
	Name   string
	Commit api.Commit
	// Open opens a stream to it that Serve answers there. It ends with ctx.
	Open func(ctx context.Context) (io.ReadWriter, error)
}

// Follow tells which other nodes follow the same unit. They are asked for
// commits while the repository cannot be reached. It must be called before Run.
func (r *Repo) Follow(peers func(unit string) []Peer) { r.peers = peers }

// objectsQuestion is what a node asks another one for: a commit, with all that it
// needs and the history since one that the asker has. A line of JSON holds it.
type objectsQuestion struct {
	Want api.Commit `json:"want"`
	Have api.Commit `json:"have,omitempty"`
}

// Serve answers one node's question for a commit with its objects. Only commits are
// given away that this node has in force or holds for pods.
func (r *Repo) Serve(ctx context.Context, stream io.ReadWriter) error {
	select {
	case r.serving <- struct{}{}:
		defer func() { <-r.serving }()
	default:
		return errors.New("this node gives objects to others already: ask again, or somebody else")
	}
	var q objectsQuestion
	line, err := bufio.NewReaderSize(io.LimitReader(stream, maxAsk), maxAsk).ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &q)
	}
	if err != nil {
		return fmt.Errorf("read the question for objects: %w", err)
	}
	// A view of its own: whoever reads the mirror otherwise does not wait. When
	// the mirror is swapped meanwhile, the other node asks again.
	r.read.Lock() // it is not being swapped now
	m, err := createMirror(r.reader.dir)
	r.read.Unlock()
	if err != nil {
		return err
	}
	hashes, err := m.since(q)
	if err != nil {
		return fmt.Errorf("give commit %s: %w", q.Want.Short(), err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return m.write(stream, hashes)
}

// since returns all objects of a commit and its history, but for those of a
// commit that the asker has.
func (m *mirror) since(q objectsQuestion) ([]plumbing.Hash, error) {
	want, have := plumbing.NewHash(string(q.Want)), plumbing.NewHash(string(q.Have))
	held := false
	for _, hash := range m.pinned() {
		held = held || hash == want
	}
	if !held {
		return nil, errors.New("this node does not hold it")
	}
	known := collector{from: m.store, has: func(plumbing.Hash) bool { return false }, seen: map[plumbing.Hash]bool{}}
	if !have.IsZero() && m.has(have) {
		commit, err := m.commit(have)
		if err == nil {
			err = known.tree(commit.TreeHash, 0)
		}
		if err != nil {
			return nil, err
		}
	}
	commits, err := history(want, have, m.commit)
	if err != nil {
		return nil, err
	}
	if have.IsZero() {
		commits = commits[:1]
	}
	found := collector{from: m.store, has: func(hash plumbing.Hash) bool { return known.seen[hash] }, seen: map[plumbing.Hash]bool{}}
	for _, commit := range commits {
		if err := found.tree(commit.TreeHash, 0); err != nil {
			return nil, err
		}
		found.found = append(found.found, commit.Hash)
	}
	return found.found, nil
}

// history returns a commit and its ancestors, the newest first, up to another one
// and as far as they can be read.
func history(from, to plumbing.Hash, read func(plumbing.Hash) (*object.Commit, error)) ([]*object.Commit, error) {
	var out []*object.Commit
	seen := map[plumbing.Hash]bool{to: true}
	for next := []plumbing.Hash{from}; len(next) > 0; next = next[1:] {
		if seen[next[0]] {
			continue
		}
		seen[next[0]] = true
		commit, err := read(next[0])
		if err != nil {
			if len(out) == 0 {
				return nil, err
			}
			continue // the history ends here: the mirror is shallow
		}
		if out = append(out, commit); len(out) > maxHistory {
			return nil, fmt.Errorf("there are more than %d commits between them", maxHistory)
		}
		next = append(next, commit.ParentHashes...)
	}
	return out, nil
}

// fromPeers looks for a commit that another node has accepted and that follows on
// the one in force here, and brings it into the mirror. It is asked for while the
// repository cannot be reached. name is the node that gave it, "" when nobody has
// anything new.
func (r *Repo) fromPeers(ctx context.Context) (tip plumbing.Hash, name string, err error) {
	if r.peers == nil {
		return plumbing.ZeroHash, "", nil
	}
	have := r.Latest().Units[r.target.Unit]
	var errs []error
	for _, p := range r.peers(r.target.Unit) {
		hash := plumbing.NewHash(string(p.Commit))
		since := have
		if p.Commit == have && !r.mirror.has(hash) {
			since = "" // it was lost with a damaged mirror
		}
		if p.Commit == since || hash.IsZero() || hash == r.judged || r.strays[stray{p.Commit, have}] {
			continue
		}
		err := r.take(ctx, p, since)
		if err == nil {
			return hash, p.Name, nil
		}
		if ctx.Err() != nil {
			return plumbing.ZeroHash, "", ctx.Err()
		}
		if _, strays := errors.AsType[*strayError](err); strays {
			if len(r.strays) > 1000 {
				clear(r.strays)
			}
			r.strays[stray{p.Commit, have}] = true
		}
		errs = append(errs, fmt.Errorf("node %s: %w", p.Name, err))
	}
	return plumbing.ZeroHash, "", errors.Join(errs...)
}

// stray is a commit that does not follow on another.
type stray struct{ commit, have api.Commit }

// strayError says that a commit does not follow on the one in force.
type strayError struct{ stray }

func (e *strayError) Error() string {
	return fmt.Sprintf("commit %s does not follow on %s, as far as its history is known", e.commit.Short(), e.have.Short())
}

// take brings a commit of another node into the mirror. What comes is looked at
// in a place of its own first: nothing gets in that lacks something, or whose
// commit does not follow on the one in force. Objects are what their
// hashes say, whoever sends them.
func (r *Repo) take(ctx context.Context, p Peer, have api.Commit) (err error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	stream, err := p.Open(ctx)
	if err != nil {
		return err
	}
	question, err := json.Marshal(objectsQuestion{Want: p.Commit, Have: have})
	if err != nil {
		return err
	}
	if _, err := stream.Write(append(question, '\n')); err != nil {
		return fmt.Errorf("ask for commit %s: %w", p.Commit.Short(), err)
	}
	arrived, err := createMirror(r.mirror.dir + ".peer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(arrived.dir)) }()
	if err := arrived.read(stream); err != nil {
		return fmt.Errorf("read commit %s: %w", p.Commit.Short(), err)
	}
	return r.mirror.admit(arrived, plumbing.NewHash(string(p.Commit)), plumbing.NewHash(string(have)))
}

// admit copies a commit and its history from another store, when it follows on
// one that is in force; on none any does.
func (m *mirror) admit(from *mirror, want, have plumbing.Hash) error {
	commits, err := history(want, have, from.commit)
	if err != nil {
		return err
	}
	follows := have.IsZero()
	for _, commit := range commits {
		for _, parent := range commit.ParentHashes {
			follows = follows || parent == have
		}
	}
	if !follows {
		return &strayError{stray{api.Commit(want.String()), api.Commit(have.String())}}
	}
	for _, commit := range slices.Backward(commits) { // the oldest first: a commit that is there is whole
		if err := m.copyCommit(from.store, commit.Hash); err != nil {
			return err
		}
	}
	m.fetches++
	return nil
}

// told is the error of a repository that cannot be reached, with what came of
// asking others.
func (r *Repo) told(err, others error) error {
	commit := r.Latest().Units[r.target.Unit]
	switch node := r.given[commit]; {
	case others != nil:
		return fmt.Errorf("%w; other nodes: %s", err, strings.ReplaceAll(others.Error(), "\n", "; "))
	case node != "":
		return fmt.Errorf("%w; commit %s came from node %s", err, commit.Short(), node)
	}
	return err
}
