package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
)

// source is a repository that is followed.
type source interface {
	// fetch finds the commit that the reference points at now and brings it
	// into the mirror, unless it is there. The repository is only read.
	fetch(ctx context.Context, m *mirror) (tip plumbing.Hash, err error)
}

// remoteSource speaks Git's pack protocol.
type remoteSource struct {
	target
	// dial opens a session that ends with ctx.
	dial func(ctx context.Context) (session, error)
}

func (s *remoteSource) fetch(ctx context.Context, m *mirror) (tip plumbing.Hash, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.total)
	defer cancel()
	defer func() {
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", errSlow, err) // whatever it says, it was cut off
		}
	}()
	session, err := s.dial(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	defer session.Close() //nolint:errcheck // everything that matters was read
	refs, err := session.AdvertisedReferencesContext(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	want, tip, err := s.choose(refs)
	if err != nil || m.has(tip) {
		return tip, err
	}
	return tip, s.transfer(ctx, session, refs, m, want, tip)
}

// choose finds the reference that is followed. want is the object to ask for,
// tip the commit behind it: they differ for an annotated tag.
func (s *remoteSource) choose(refs *packp.AdvRefs) (want, tip plumbing.Hash, err error) {
	names := candidates(s.Ref)
	if s.Ref == "" {
		names = []string{headBranch(refs)}
	}
	for _, name := range names {
		if hash, found := refs.References[name]; found {
			if peeled, tag := refs.Peeled[name]; tag {
				return hash, peeled, nil
			}
			return hash, hash, nil
		}
	}
	if s.Ref == "" && refs.Head != nil {
		return *refs.Head, *refs.Head, nil
	}
	known := make([]string, 0, len(refs.References))
	for name := range refs.References {
		known = append(known, name)
	}
	return want, tip, noRef(s.Ref, known)
}

// headBranch returns the branch that HEAD points to.
func headBranch(refs *packp.AdvRefs) string {
	for _, pair := range refs.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(pair, "HEAD:"); ok {
			return name
		}
	}
	return "HEAD"
}

// candidates are the full names that a branch or tag may have.
func candidates(ref string) []string {
	if strings.HasPrefix(ref, "refs/") {
		return []string{ref}
	}
	return []string{"refs/heads/" + ref, "refs/tags/" + ref}
}

// noRef says that a branch does not exist, and which do.
func noRef(ref string, known []string) error {
	var branches []string
	for _, name := range known {
		if short, ok := strings.CutPrefix(name, "refs/heads/"); ok {
			branches = append(branches, short)
		}
	}
	slices.Sort(branches)
	if len(branches) == 0 {
		return errEmpty
	}
	shown := strings.Join(branches[:min(len(branches), 20)], ", ")
	if ref == "" {
		return fmt.Errorf("HEAD of the repository points to no branch that exists; name one of: %s", shown)
	}
	return fmt.Errorf("there is no branch or tag %q; the branches are: %s", ref, shown)
}

// transfer asks for the objects behind want. The first time only the newest
// commit comes; later everything since the commits that are pinned.
func (s *remoteSource) transfer(ctx context.Context, session session, refs *packp.AdvRefs, m *mirror, want, tip plumbing.Hash) error {
	request := packp.NewUploadPackRequestFromCapabilities(refs.Capabilities)
	if refs.Capabilities.Supports(capability.NoProgress) {
		if err := request.Capabilities.Set(capability.NoProgress); err != nil {
			return err
		}
	}
	request.Wants = []plumbing.Hash{want}
	request.Haves = m.pinned()
	if refs.Capabilities.Supports(capability.Shallow) {
		if err := request.Capabilities.Set(capability.Shallow); err != nil {
			return err
		}
		if len(request.Haves) == 0 {
			request.Depth = packp.DepthCommits(1)
		} else {
			shallow, err := m.store.Shallow()
			if err != nil {
				return fmt.Errorf("read the shallow commits: %w", err)
			}
			request.Shallows = shallow
		}
	}
	response, err := session.UploadPack(ctx, request)
	if err != nil {
		return err
	}
	defer response.Close() //nolint:errcheck // it was read to its end
	pack := &capped{r: demultiplexed(request.Capabilities, response), left: MaxPack}
	if err := packfile.UpdateObjectStorage(m.store, pack); err != nil {
		return err
	}
	m.fetches++
	if len(response.Shallows) > 0 {
		if err := m.addShallow(response.Shallows...); err != nil {
			return err
		}
	}
	if !m.has(tip) {
		return fmt.Errorf("the repository sent a pack without commit %s", tip)
	}
	return nil
}

func demultiplexed(capabilities *capability.List, r io.Reader) io.Reader {
	switch {
	case capabilities.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case capabilities.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	default:
		return r
	}
}

// capped fails when more is read than was agreed.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return n, fmt.Errorf("the repository sends more than %d MiB", MaxPack>>20)
	}
	return n, err
}
