// Package containerd runs containers with containerd. It is the only package
// that imports it.
//
// The engine holds no state of its own that matters: what a container is, is
// written on it as labels; which pod it belongs to, which attempt it is, and
// how it ended. List reads everything back after a restart of either side.
//
// A pod has no pause container. Its containers join namespaces that were pinned
// before, and share one shim through an annotation of their spec.
//
// Making a container is done with as few calls as possible and none that waits
// for the deletion of another: restarting must take a tenth of a second.
package containerd
