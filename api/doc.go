// Package api holds the nouns of Shoal: the values that cross the walls
// between its rooms.
//
// There are two kinds. Desired state comes out of Git as a [Snapshot]; it says
// what should run and where each object stands in the repository. Observed
// state comes from the machines as the records of a [Board]; it says what does
// run. A scheduler turns the two into an [AssignmentSet], which names pods and
// never carries a spec, and into [Facts], its own memory.
//
// Everything here is a value. A value that was handed out is not changed
// afterwards, by nobody; whoever wants another one makes a copy. That is why
// nothing in this package locks, and why every room may keep what it was given.
//
// The zero value of a desired state means "not known yet". It never means
// "nothing": a room that receives it removes nothing.
package api
