package gitsync

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/go-git/go-git/v5/plumbing/transport"
	"golang.org/x/crypto/ssh/knownhosts"
)

// errEmpty says that there is nothing to follow yet.
var errEmpty = errors.New("the repository has no commits yet")

// errSlow says that the time for one look at the repository is over.
var errSlow = errors.New("out of time")

// explain turns what a library says about a repository into what its owner can
// do about it. The original stays in the chain.
func explain(t target, err error) error {
	var key *knownhosts.KeyError
	var timeout net.Error
	text := err.Error()
	hint := ""
	switch {
	case errors.As(err, &key) && len(key.Want) > 0:
		hint = "THE HOST KEY HAS CHANGED: somebody may be in between; if the change is expected, replace the key in the known_hosts file"
	case errors.As(err, &key):
		hint = "the host key is not known; add it to the known_hosts file (ssh-keyscan, and compare)"
	case errors.Is(err, transport.ErrAuthenticationRequired):
		hint = "the credentials are missing or wrong"
	case errors.Is(err, transport.ErrAuthorizationFailed):
		hint = "the credentials do not allow to read it"
	case strings.Contains(text, "unable to authenticate"):
		hint = "the server does not accept the SSH key"
	case errors.Is(err, transport.ErrRepositoryNotFound):
		hint = "there is no repository at this address, or the credentials do not show it"
	case errors.Is(err, transport.ErrEmptyRemoteRepository), errors.Is(err, errEmpty):
		return fmt.Errorf("fetch %s: %w", t.where(), errEmpty)
	case strings.Contains(text, "sha256"), strings.Contains(strings.ToLower(text), "objectformat"):
		hint = "SHA-256 repositories are not supported; make one with --object-format=sha1"
	case errors.Is(err, errSlow):
		hint = fmt.Sprintf("the repository did not answer completely within %s", t.total)
	case errors.As(err, &timeout) && timeout.Timeout():
		hint = "the repository is not reachable or has gone silent"
	}
	if hint != "" {
		return fmt.Errorf("fetch %s: %s: %w", t.where(), hint, err)
	}
	return fmt.Errorf("fetch %s: %w", t.where(), err)
}

// where names what is followed: "https://host/repo main".
func (t target) where() string {
	if t.Ref == "" {
		return t.shown
	}
	return t.shown + " " + t.Ref
}

// mirrorError is an error in reading the mirror.
type mirrorError struct{ err error }

func (e *mirrorError) Error() string { return "read the mirror: " + e.err.Error() }
func (e *mirrorError) Unwrap() error { return e.err }

// damaged reports whether an error means that the mirror lacks or has garbled
// something it must have. A machine that is short of something is no damage.
func damaged(err error) bool {
	var reading *mirrorError
	var system syscall.Errno
	return errors.As(err, &reading) && !errors.As(err, &system)
}

// commitError says what makes a commit unreadable by its own fault.
type commitError struct{ reason string }

func (e *commitError) Error() string { return e.reason }

func refuse(format string, args ...any) error { return &commitError{fmt.Sprintf(format, args...)} }
