// Package fencer is the process that ends exclusive pods when the lease of their
// node runs out, whatever becomes of the daemon.
//
// A daemon that hangs, is stopped or was killed cannot keep the promise that its
// exclusive pods end in time. So a small process beside it does: the daemon tells
// it through a Unix socket which pods are exclusive, below which cgroups their
// processes are, and when the last confirmed renewal was sent; when no newer one
// comes in time it signals the processes itself, without containerd. See package
// fence for when. It outlives the daemon and is taken over by the next one.
//
// What it has ended stays ended: it shuts the pod's cgroup to new processes until
// there is a lease again, so that a daemon that wakes up in the middle of
// starting a container does not succeed.
//
// [Serve] is the process, [Client] the daemon's end of it, [Warden] the part that
// both have: a daemon whose fencer cannot be started does the same by itself.
package fencer
