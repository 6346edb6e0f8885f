// Package gitsync follows a Git repository and turns its commits into desired
// state.
//
// A Repo keeps a bare mirror of the one branch it follows, never a work tree.
// Its loop is: ask the repository for the tip (after a poke, a change of a
// local repository, or the poll interval), fetch what is new, judge it:
//
//	walk the tree -> lay out plain manifests and kustomizations -> render -> decode -> assemble
//
// and accept it or not. A commit with one mistake changes nothing: Latest goes
// on returning the last accepted one, and Status lists all mistakes. The
// accepted commit is pinned in the mirror, so a restart needs no repository.
//
// Work follows the change: trees, files and rendered folders are remembered by
// hash, and only what differs is read again.
//
// This package is the only one that imports go-git. Which commit may follow
// which is not decided here yet: any head of the branch is followed.
package gitsync
